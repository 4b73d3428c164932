"""Answers that keep to a grammar, whatever the model says; guesses that change none; strangers' grammars do no harm."""

from __future__ import annotations

import asyncio
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import MAX_GRAMMAR_BYTES, GenerationOptions, Grammar
from far_mesh.model import grammar as grammar_module
from far_mesh.model.grammar import Grammars
from far_mesh.model.sampler import Noise, Sampler
from far_mesh.model.tokens import Tokens
from far_node.blocks.cut import read_config
from far_node.blocks.source import bundled_model_path, find_model
from tests.support.models import whole_model

SCHEMAS: dict[str, Any] = {
    "object": {"type": "object"},
    "anything": {},
    "person": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "unicode": {
        "type": "object",
        "properties": {"größe": {"type": "number"}, "日本": {"enum": ["猫", "犬", "🦊"]}},
        "required": ["größe", "日本"],
        "additionalProperties": False,
    },
    "enum": {"enum": ["red", 1, None, True, {"a": [1, 2]}, 'gr"ün']},
    "const": {"const": {"x": 1.5}},
    "numbers": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": -1.5, "maximum": 99.25},
        "minItems": 2,
        "maxItems": 4,
    },
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 999},
    "list": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    "more properties": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "additionalProperties": {"type": "integer"},
    },
    "any of": {
        "anyOf": [
            {"type": "string", "maxLength": 5},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1},
            {"type": "null"},
        ]
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "string", "maxLength": 4}}, "required": ["b"]},
        ]
    },
    "one of": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "x": {"type": of}},
                "required": ["kind", "x"],
                "additionalProperties": False,
            }
            for kind, of in (("a", "integer"), ("b", "boolean"))
        ]
    },
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "length": {"type": "string", "minLength": 3, "maxLength": 6},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "string", "maxLength": 3}],
        "items": False,
        "minItems": 2,
    },
    "types": {"type": ["integer", "null", "boolean"]},
    "date": {"type": "string", "format": "date"},
    "nested": {
        "type": "object",
        "properties": {
            "a": {
                "type": "object",
                "properties": {"b": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}},
                "required": ["b"],
                "additionalProperties": False,
            }
        },
        "required": ["a"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    source = find_model("far-demo")
    return Tokens.load(source, read_config(source))


@pytest.fixture(scope="module")
def grammars(tokens: Tokens) -> Grammars:
    return Grammars(tokens)


async def babble(
    grammars: Grammars, tokens: Tokens, grammar: Grammar, seed: int, *, most: int = 200, temperature: float = 1.0
) -> tuple[str, bool]:
    """What a model says whose logits are chance, and whether it came to an end."""
    options = GenerationOptions(most, temperature=temperature, seed=seed, grammar=grammar)
    sampler = Sampler(options, Noise(seed), [1], tokens.end_ids, await grammars.matcher(grammar))
    generator, said = torch.Generator().manual_seed(seed), list[int]()
    while len(said) < most and not sampler.is_complete and not tokens.end_ids.intersection(said):
        said.append(sampler.pick(3 * torch.randn(tokens.vocabulary, generator=generator)))
        sampler.read(said[-1:])
    return tokens.decode(said), sampler.is_complete or not tokens.end_ids.isdisjoint(said)


@pytest.mark.parametrize("name", SCHEMAS)
async def test_every_answer_that_ends_is_what_the_schema_says(grammars: Grammars, tokens: Tokens, name: str) -> None:
    schema, ended = SCHEMAS[name], 0
    judge = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for seed in range(9):
        text, has_ended = await babble(
            grammars, tokens, Grammar.json_schema(schema), seed, temperature=0.8 * (seed % 3 > 0)
        )
        if has_ended:
            judge.validate(json.loads(text))
            ended += 1
    assert ended > 0


@pytest.mark.parametrize("name", ["person", "one of", "any of", "pattern"])
@pytest.mark.parametrize("is_trained", [True, False])
async def test_every_answer_of_a_real_model_that_ends_is_what_the_schema_says(
    grammars: Grammars, tokens: Tokens, talker: Path, is_trained: bool, name: str
) -> None:
    """Of the bundled one, which tells stories, and of one of chance."""
    model, grammar = whole_model(bundled_model_path() if is_trained else talker), Grammar.json_schema(SCHEMAS[name])
    matcher, ended = await grammars.matcher(grammar), 0
    for seed in range(2):
        options = GenerationOptions(90, temperature=0.7 * seed, seed=seed, grammar=grammar)
        ids = tokens.encode("Tell me of a fox, in JSON.")
        sampler, cache, fresh = Sampler(options, Noise(seed), tuple(ids), tokens.end_ids, matcher.fresh()), None, ids
        said = list[int]()
        while len(said) < 90 and not sampler.is_complete and not tokens.end_ids.intersection(said):
            with torch.inference_mode():
                output = model(torch.tensor([fresh]), past_key_values=cache, use_cache=True)
            fresh, cache = [sampler.pick(output.logits[0, -1])], output.past_key_values
            said += fresh
            sampler.read(fresh)
        if len(said) < 90:
            Draft202012Validator(SCHEMAS[name]).validate(json.loads(tokens.decode(said)))
            ended += 1
    assert ended > 0


@pytest.mark.parametrize("pattern", [r"[a-f]{3}-\d{2}", "(ja|nein|vielleicht)", "日本+语?", r"\p{Greek}{2,4}", "a*b"])
async def test_every_answer_matches_the_pattern_from_end_to_end(
    grammars: Grammars, tokens: Tokens, pattern: str
) -> None:
    python = pattern.replace(r"\p{Greek}", r"[\u0370-\u03ff\u1f00-\u1fff\u2126\uab65]")
    for seed in range(8):
        text, has_ended = await babble(grammars, tokens, Grammar.regex(pattern), seed)
        assert not has_ended or re.fullmatch(python, text) or pattern == r"\p{Greek}{2,4}"
        assert has_ended or pattern == "a*b"
        if pattern == r"\p{Greek}{2,4}":
            assert 2 <= len(text) <= 4


async def test_a_context_free_grammar_is_kept_to(grammars: Grammars, tokens: Tokens) -> None:
    lark = 'start: sum\nsum: term ("+" term)*\nterm: /[0-9]{1,3}/ | "(" sum ")"\n'
    for seed in range(12):
        text, has_ended = await babble(grammars, tokens, Grammar.lark(lark), seed, most=120)
        if has_ended:
            assert set(text) <= set("0123456789+()")
            assert isinstance(eval(re.sub(r"\b0+(?=\d)", "", text)), int)


async def test_a_text_may_be_read_and_taken_back_in_any_way(grammars: Grammars, tokens: Tokens) -> None:
    """What may come next depends on the tokens before, and on nothing else."""
    grammar, luck = Grammar.json_schema(SCHEMAS["person"]), random.Random(5)
    told = tokens._tokenizer('{"name": "Zoë 🦊", "age": 42, "tags": ["a"]}', add_special_tokens=False)["input_ids"]
    first = await grammars.matcher(grammar)
    wanderer, place = first.fresh(), 0
    for _ in range(120):
        to = luck.randint(0, len(told))
        if to > place:
            wanderer.read(told[place:to])
        else:
            wanderer.back(place - to)
        place = to
        if luck.random() < 0.5:
            ahead = told[place : place + luck.randint(1, 4)]
            assert not ahead or wanderer.takes(ahead) == (place + len(ahead) < len(told))
            assert not wanderer.takes([*ahead, min(tokens.end_ids)])
        fresh = first.fresh()
        fresh.read(told[:place])
        assert torch.equal(wanderer.forbidden(tokens.vocabulary), fresh.forbidden(tokens.vocabulary))
        assert wanderer.is_complete == fresh.is_complete == (place == len(told))


async def test_the_end_is_allowed_only_where_the_grammar_is_satisfied(grammars: Grammars, tokens: Tokens) -> None:
    ends = sorted(tokens.end_ids)
    matcher = await grammars.matcher(Grammar.regex("ab?"))
    assert matcher.forbidden(tokens.vocabulary)[ends].all()
    matcher.read(tokens._tokenizer("a", add_special_tokens=False)["input_ids"])
    assert not matcher.forbidden(tokens.vocabulary)[ends].any()
    assert not matcher.is_complete
    assert all(matcher.completes(end) for end in ends)
    before = matcher.forbidden(tokens.vocabulary)
    matcher.read([ends[0], 300])
    assert matcher.is_complete
    for count in (1, 1):
        assert matcher.is_complete
        matcher.back(count)
    assert not matcher.is_complete
    assert torch.equal(matcher.forbidden(tokens.vocabulary), before)


async def test_a_wider_head_than_the_tokenizer_gets_no_token_from_its_padding(
    grammars: Grammars, tokens: Tokens
) -> None:
    forbidden = (await grammars.matcher(Grammar.regex("a"))).forbidden(tokens.vocabulary + 100)
    assert forbidden.shape == (tokens.vocabulary + 100,)
    assert forbidden[tokens.vocabulary :].all()


async def test_what_a_grammar_does_not_allow_cannot_be_read(grammars: Grammars, tokens: Tokens) -> None:
    matcher = await grammars.matcher(Grammar.regex("a"))
    with pytest.raises(InvalidArgument):
        matcher.read(tokens._tokenizer("z", add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, "if"),
        ({"type": "array", "contains": {"type": "integer"}}, "contains"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"type": "string", "format": "colour"}, "colour"),
        ({"$ref": "https://example.com/schema.json"}, "https://example.com/schema.json"),
        ({"$ref": "#/$defs/nobody"}, "nobody"),
        ({"type": "farbe"}, "farbe"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
        ({"enum": []}, "empty"),
        ({"type": "string", "pattern": "(?=a)b"}, "look"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_kept_to_is_refused_by_name(grammars: Grammars, schema: Any, named: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(named)) as failure:
        await grammars.matcher(Grammar.json_schema(schema))
    assert failure.value.facts["param"] == "grammar"


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar.json_schema({"type": "integer", "multipleOf": 99999989}),
        Grammar.json_schema({"type": "string", "pattern": "^(a{1000}){1000}$"}),
        Grammar.json_schema(
            {
                "$defs": {
                    **{f"n{i}": {"type": "array", "items": {"$ref": f"#/$defs/n{i + 1}"}} for i in range(900)},
                    "n900": {"type": "null"},
                },
                "$ref": "#/$defs/n0",
            }
        ),
        Grammar.json_schema({"$ref": "#"}),
        Grammar.regex("(a{1000}){1000}"),
        Grammar.regex("(" * 20_000 + "a" + ")" * 20_000),
        Grammar.regex("("),
        Grammar.lark("start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
        Grammar.lark("start: nobody"),
        Grammar.lark("\x00"),
    ],
    ids=["steps", "states", "references", "itself", "regex", "brackets", "open bracket", "nested", "unknown", "zero"],
)
async def test_a_grammar_made_to_do_harm_is_refused_and_the_process_lives_on(
    grammars: Grammars, tokens: Tokens, grammar: Grammar
) -> None:
    with pytest.raises(InvalidArgument) as failure:
        await grammars.matcher(grammar)
    assert failure.value.facts["param"] == "grammar"
    assert len(failure.value.message) < 500
    text, has_ended = await babble(grammars, tokens, Grammar.regex("ab"), 1)
    assert (text, has_ended) == ("ab", True)


def nested(depth: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        *("[1]", "7", '"x"', "null", "false", "{", "", '{"minimum": NaN}', "[" * 100_000, "\ud800"),
        *({"a": object()}, 7, {"enum": ["x" * MAX_GRAMMAR_BYTES]}, {"const": float("inf")}, nested(100_000)),
    ],
    ids=[*"abcdefghijkl", "long", "infinite", "deep"],
)
def test_what_is_no_schema_is_refused_at_the_door(schema: Any) -> None:
    with pytest.raises(InvalidArgument) as failure:
        Grammar.json_schema(schema)
    assert failure.value.facts["param"] == "grammar"


@pytest.mark.parametrize("text", ["", "\udfff", "a" * (MAX_GRAMMAR_BYTES + 1)], ids=["empty", "half", "long"])
def test_what_is_no_grammar_is_refused_at_the_door(text: str) -> None:
    for make in (Grammar.regex, Grammar.lark):
        with pytest.raises(InvalidArgument):
            make(text)


async def test_a_schema_that_is_nested_too_deep_for_the_library_is_refused(grammars: Grammars) -> None:
    with pytest.raises(InvalidArgument, match="recursion"):
        await grammars.matcher(Grammar.json_schema(nested(300)))


async def test_a_grammar_is_compiled_once_and_the_oldest_are_forgotten(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_module, "_KEPT", 2)
    grammars, compiled, compile_one = Grammars(tokens), list[str](), Grammars._compile

    def counted(self: Grammars, grammar: Grammar) -> Any:
        compiled.append(grammar.text)
        return compile_one(self, grammar)

    monkeypatch.setattr(Grammars, "_compile", counted)
    await asyncio.gather(*(grammars.matcher(Grammar.regex("a")) for _ in range(5)))
    for pattern in ("b", "a", "c", "a", "b"):
        await grammars.matcher(Grammar.regex(pattern))
    assert compiled[0] == "a"
    assert sorted(compiled) == ["a", "b", "b", "c"] or sorted(compiled) == ["a", "a", "b", "b", "c"]
    assert len(grammars._compiled) == 2


async def test_whitespace_has_an_end(grammars: Grammars, tokens: Tokens) -> None:
    """A model that would indent for ever comes to the point."""
    grammar = Grammar.json_schema({"type": "array", "items": {"type": "integer"}, "maxItems": 1})
    sampler = Sampler(
        GenerationOptions(300, grammar=grammar), Noise(1), [1], tokens.end_ids, await grammars.matcher(grammar)
    )
    liking = torch.zeros(tokens.vocabulary)
    for token in range(tokens.vocabulary):
        liking[token] = 5.0 * tokens.bytes_of(token).isspace() - 9.0 * tokens.bytes_of(token).isdigit()
    said = list[int]()
    while not sampler.is_complete:
        said.append(sampler.pick(liking))
        sampler.read(said[-1:])
        assert len(said) < 300
    assert json.loads(tokens.decode(said)) == [0]


LOREM = "the quick brown fox and the lazy dog "
WISHES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 0.8},
    "less than nothing": {"frequency_penalty": -0.5, "presence_penalty": -0.7},
    "repetition": {"repetition_penalty": 1.6},
    "bias": {"logit_bias": {3: 4.0, 5: -100, 9: -2.5}},
    "top k": {"top_k": 5},
    "min p": {"min_p": 0.1},
    "no end yet": {"min_tokens": 12},
    "another end": {"stop_token_ids": frozenset([7, 11])},
    "object": {"grammar": Grammar.json_schema({"type": "object"})},
    "schema": {
        "grammar": Grammar.json_schema(
            {
                "type": "object",
                "properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {"enum": ["x", "yy"]}},
                "required": ["a", "b"],
                "additionalProperties": False,
            }
        )
    },
    "pattern": {"grammar": Grammar.regex(f"({LOREM}){{1,4}}!")},
    "all": {
        "presence_penalty": 0.6,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.1,
        "logit_bias": {2: 1.0, 300: -100},
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.01,
        "min_tokens": 5,
        "grammar": Grammar.regex(f"({LOREM}|[a-z ]{{3,9}}){{2,5}}[.]"),
    },
}


def _says(ids: list[int], seed: int, disturbed: float = 0.0) -> torch.Tensor:
    """Logits of a model that looks back two tokens, and likes some of the first tokens."""
    key = hash((seed, *ids[-2:])) % 2**31
    logits = 3 * torch.randn(2048, generator=torch.Generator().manual_seed(key))
    logits[:16] += 3
    if disturbed:
        logits += disturbed * torch.randn(2048, generator=torch.Generator().manual_seed(key + 1))
    return logits


def _plainly(sampler: Sampler, prompt: list[int], seed: int) -> list[int]:
    said = list[int]()
    while len(said) < sampler.options.max_tokens and not sampler.is_complete and not sampler.ends.intersection(said):
        said.append(sampler.pick(_says(prompt + said, seed)))
        sampler.read(said[-1:])
    return said


def _with_guesses(sampler: Sampler, prompt: list[int], seed: int, luck: random.Random) -> tuple[list[int], int, int]:
    """As a walk does it: guesses of a draft or of chance, judged in one pass, and back where one is wrong."""
    draft, check, said, right, wrong = sampler.fork(), sampler.fork(), list[int](), 0, 0
    while len(said) < sampler.options.max_tokens and not sampler.is_complete and not sampler.ends.intersection(said):
        check.read(said[check.position - len(prompt) :])
        guesses = list[int]()
        for _ in range(luck.randint(0, 5)):
            ids = [*said, *guesses]
            same = next((at for at, (a, b) in enumerate(zip(draft._ids, ids, strict=False)) if a != b), len(ids))
            draft.back_to(len(prompt) + luck.randint(0, same))  # it may go back further than it must
            draft.read(ids[draft.position - len(prompt) :])
            guess = draft.choose(_says(prompt + said + guesses, seed, 0.4)).token
            if draft.ends_with(guess):
                break
            assert check.may_follow(guesses, guess)
            if luck.random() < 0.1:
                guess = luck.randrange(2048)
                if guess in sampler.ends or not check.may_follow(guesses, guess):
                    continue
            guesses.append(guess)
        for place in range(len(guesses) + 1):
            token = sampler.pick(_says(prompt + said, seed))
            sampler.read([token])
            said.append(token)
            is_right = place < len(guesses) and guesses[place] == token
            right, wrong = right + is_right, wrong + (place < len(guesses) and not is_right)
            if not is_right or len(said) == sampler.options.max_tokens:
                break
    return said, right, wrong


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("name", WISHES)
async def test_guesses_change_nothing_whatever_the_options(
    tokens: Tokens, grammars: Grammars, name: str, temperature: float
) -> None:
    luck, right, wrong = random.Random(f"{name} {temperature}"), 0, 0
    for seed in range(4):
        options = GenerationOptions(40, temperature=temperature, seed=seed, **WISHES[name])
        matcher = None if options.grammar is None else await grammars.matcher(options.grammar)
        prompt, ends = luck.choices(range(2048), k=luck.randint(1, 6)), tokens.end_ids | options.stop_token_ids
        first = Sampler(options, Noise(seed), prompt, ends, matcher)
        expected = _plainly(first.fork(), prompt, seed)
        said, good, bad = _with_guesses(first.fork(), prompt, seed, luck)
        assert said == expected
        right, wrong = right + good, wrong + bad
    assert right > 3, "some guesses were right"
    assert wrong > 0 or name == "pattern", "and some were taken back"
