"""Calls of tools: told to a model by its template, made to fit a schema, read back from its text as it comes."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import GenerationOptions
from far_mesh.model.grammar import Grammars
from far_mesh.model.sampler import Noise, Sampler
from far_mesh.model.tokens import TextStream, Tokens
from far_mesh.model.tools import FORMATS, ToolCall, ToolFormat, ToolStream
from far_node.blocks.cut import read_config
from far_node.blocks.source import find_model

HERMES = """
{%- if tools %}<|system|>You may call these functions: {% for tool in tools %}{{ tool | tojson }}
{% endfor %}Answer with <tool_call>{"name": …, "arguments": …}</tool_call><|end|>{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|user|><tool_response>{{ message.content }}</tool_response><|end|>
{%- else %}<|{{ message.role }}|>{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|end|>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
LLAMA = """
{%- for message in messages %}<|{{ message.role }}|>
{%- if loop.first and tools and message.role == 'user' %}Given these functions: {{ tools | tojson }}
Respond with {"name": function name, "parameters": its arguments}.
{% endif %}
{%- if message.tool_calls %}
{%- set call = message.tool_calls[0].function %}{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}
{%- else %}{{ message.content }}{% endif %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
MISTRAL = """
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST] {{ message.content }}[/INST]
{%- elif message.tool_calls %}[TOOL_CALLS] [
{%- for call in message.tool_calls %}
{%- if call.id | length < 8 %}{{ raise_exception('ids have eight characters') }}{% endif %}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}
{%- if not loop.last %}, {% endif %}{% endfor %}]<|end|>
{%- else %}{{ message.content }}<|end|>{% endif %}{% endfor %}"""
IN_WORDS = HERMES.replace('{"name": {{ call', "<function={{ call").replace('"arguments": ', "")
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"city": {"enum": ["Tōkyō", "Paris", "São Paulo"]}},
        },
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "get_time"}}
TEMPLATES = {"hermes": HERMES, "mistral": MISTRAL, "llama": LLAMA}
CALLS = (ToolCall("get_weather", '{"city": "Tōkyō", "days": 2}'), ToolCall("get_time", "{}"))
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather?"}]


def tokens_of(template: str, marks: tuple[str, ...] = ()) -> Tokens:
    """The bundled tokenizer, as if it were of a model with that template."""
    source = find_model("far-demo")
    tokens = Tokens.load(source, read_config(source))
    tokens._tokenizer.chat_template = template
    if marks:
        tokens._tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    return Tokens(tokens._tokenizer, tokens.end_ids, len(tokens._tokenizer))


def format_of(name: str) -> ToolFormat:
    (found,) = (one for one in FORMATS if one.name == name)
    return found


def written(name: str, calls: tuple[ToolCall, ...]) -> str:
    """As a model of that convention writes calls."""
    if name == "hermes":
        return "\n".join(
            f'<tool_call>\n{{"name": "{call.name}", "arguments": {call.arguments}}}\n</tool_call>' for call in calls
        )
    if name == "mistral":
        made = ", ".join(f'{{"name": "{call.name}", "arguments": {call.arguments}}}' for call in calls)
        return f"[TOOL_CALLS] [{made}]"
    return f'{{"name": "{calls[0].name}", "parameters": {calls[0].arguments}}}'


def streamed(format: ToolFormat, text: str, luck: random.Random) -> tuple[list[str], list[ToolCall]]:
    """What comes of a text that is cut anywhere."""
    stream, pieces, calls = ToolStream(format), list[str](), list[ToolCall]()
    while text:
        size = luck.randint(1, 7)
        piece = stream.push(text[:size])
        text = text[size:]
        pieces.append(piece.text)
        calls += piece.calls
    piece = stream.flush()
    return [*pieces, piece.text], [*calls, *piece.calls]


class TestTemplates:
    """What a model has learnt is what its template shows."""

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_the_format_is_found_by_asking_the_template(self, name: str) -> None:
        found = tokens_of(TEMPLATES[name]).tool_format
        assert found is not None
        assert found.name == name

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_tools_are_told_to_the_model(self, name: str) -> None:
        tokens = tokens_of(TEMPLATES[name])
        ids = tokens.encode(QUESTION, tools=[WEATHER])
        assert "get_weather" in tokens.decode(ids)
        assert "get_weather" not in tokens.decode(tokens.encode(QUESTION))
        assert tokens.encode("What is the weather?", tools=[WEATHER]) == ids

    def test_calls_that_were_made_go_back_to_the_model(self) -> None:
        tokens = tokens_of(HERMES)
        call = {
            "id": "call_0",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
        }
        told = [
            *QUESTION,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_0", "content": "rain"},
        ]
        text = tokens.decode(tokens.encode(told, tools=[WEATHER]))
        assert '{"name": "get_weather", "arguments": {"city": "Paris"}}' in text
        assert "<tool_response>rain</tool_response>" in text

    @pytest.mark.parametrize("arguments", ["{", "7", "", None, 7, "[" * 100_000], ids=list("abcdef"))
    def test_calls_whose_arguments_are_none_are_refused(self, arguments: Any) -> None:
        call = {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        with pytest.raises(InvalidArgument) as failure:
            tokens_of(HERMES).encode([*QUESTION, {"role": "assistant", "content": "", "tool_calls": [call]}])
        assert failure.value.facts["param"] == "messages"

    @pytest.mark.parametrize("calls", [["x"], [{}], [{"function": 7}], "x", 7], ids=str)
    def test_calls_that_are_none_are_refused(self, calls: Any) -> None:
        with pytest.raises(InvalidArgument):
            tokens_of(HERMES).encode([*QUESTION, {"role": "assistant", "content": "", "tool_calls": calls}])

    def test_a_template_that_knows_no_tools_says_so(self) -> None:
        source = find_model("far-demo")
        tokens = Tokens.load(source, read_config(source))
        assert tokens.tool_format is None
        for template in (None, IN_WORDS):
            if template is not None:
                tokens = tokens_of(template)
            with pytest.raises(InvalidArgument, match="tools") as failure:
                tokens.encode(QUESTION, tools=[WEATHER])
            assert failure.value.facts["param"] == "tools"

    def test_tools_need_messages(self) -> None:
        tokens = tokens_of(HERMES)
        for prompt, raw in (("text", True), ([5, 6], False)):
            with pytest.raises(InvalidArgument) as failure:
                tokens.encode(prompt, raw=raw, tools=[WEATHER])
            assert failure.value.facts["param"] == "tools"

    @pytest.mark.parametrize(
        "tools",
        [
            [],
            [WEATHER, WEATHER],
            [TIME] * 200,
            [{"type": "function"}],
            [{"type": "retrieval"}],
            [{"type": "function", "function": {"name": ""}}],
            [{"type": "function", "function": {"name": 7}}],
            [{"type": "function", "function": {"name": "x", "parameters": "y"}}],
        ],
        ids=list("abcdefgh"),
    )
    def test_tools_that_are_none_are_refused(self, tools: Any) -> None:
        with pytest.raises(InvalidArgument) as failure:
            tokens_of(HERMES).encode(QUESTION, tools=tools)
        assert failure.value.facts["param"] == "tools"

    def test_marks_that_are_special_tokens_are_shown_when_they_are_asked_for(self) -> None:
        tokens = tokens_of(MISTRAL, ("[TOOL_CALLS]",))
        assert list(tokens.tool_marks) == ["[TOOL_CALLS]"]
        assert tokens_of(MISTRAL).tool_marks == {}
        shown = frozenset(tokens.tool_marks.values())
        said = tokens._tokenizer(written("mistral", CALLS), add_special_tokens=False)["input_ids"]
        assert "[TOOL_CALLS]" not in tokens.decode(said)
        stream, text = TextStream(tokens, (), shown), ""
        for token in said:
            text += stream.push(token)
        assert text + stream.flush() == written("mistral", CALLS)


class TestStream:
    """Text flows, calls do not leak, and what is no call is text."""

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_calls_are_read_however_the_text_is_cut(self, name: str) -> None:
        expected = list(CALLS if name != "llama" else CALLS[:1])
        for seed in range(40):
            pieces, calls = streamed(format_of(name), written(name, CALLS), random.Random(seed))
            assert "".join(pieces) == ""
            assert calls == expected

    @pytest.mark.parametrize("name", ["hermes", "mistral"])
    def test_text_before_a_call_flows_and_nothing_of_the_call_is_text(self, name: str) -> None:
        for seed in range(40):
            text = "Let me see, 3 < 5 [or so]. \n\n"
            pieces, calls = streamed(format_of(name), text + written(name, CALLS), random.Random(seed))
            assert "".join(pieces) == text.rstrip()
            assert calls == list(CALLS)
            assert sum(bool(piece) for piece in pieces) > 3, "it comes as it is made"

    @pytest.mark.parametrize("name", TEMPLATES)
    @pytest.mark.parametrize(
        "text",
        [
            "No call at all.",
            " with space around \n",
            "<tool_call>{broken</tool_call> and on",
            '<tool_call>{"name": 7}</tool_call>',
            '<tool_call>{"name": "cut", "argum',
            "<tool_call",
            "[TOOL_CALLS] not JSON",
            '[TOOL_CALLS] [{"name": "a", "arguments": {}}, 7]',
            "[TOOL_",
            '{"colour": "red"}',
            '{"name": "x", "parameters": [1]}',
            '{"name": "x"',
            "{" * 3000,
            "[" * 3000,
            "",
        ],
        ids=str,
    )
    def test_what_is_no_call_is_text_to_the_last_character(self, name: str, text: str) -> None:
        for seed in range(10):
            pieces, calls = streamed(format_of(name), text, random.Random(seed))
            assert "".join(pieces) == text
            assert calls == []

    def test_a_call_by_a_python_tag_is_read(self) -> None:
        text = '<|python_tag|>{"name": "get_time", "parameters": {}}'
        assert streamed(format_of("llama"), text, random.Random(1)) == (["" for _ in _cuts(text)], [CALLS[1]])

    def test_json_in_the_middle_of_a_text_is_no_call_of_a_llama(self) -> None:
        text = 'It is {"name": "get_time", "parameters": {}}'
        pieces, calls = streamed(format_of("llama"), text, random.Random(1))
        assert ("".join(pieces), calls) == (text, [])


def _cuts(text: str) -> list[int]:
    """As many as `streamed` gives pieces with the first seed."""
    luck, left, sizes = random.Random(1), len(text), list[int]()
    while left > 0:
        sizes.append(luck.randint(1, 7))
        left -= sizes[-1]
    return [*sizes, 0]


class TestGrammar:
    """A call that must be made is made, with arguments that fit."""

    @pytest.mark.parametrize("is_special", [False, True])
    @pytest.mark.parametrize("name", TEMPLATES)
    async def test_a_model_that_babbles_calls_a_tool_with_arguments_that_fit(self, name: str, is_special: bool) -> None:
        format = format_of(name)
        tokens = tokens_of(TEMPLATES[name], format.marks if is_special else ())
        assert bool(tokens.tool_marks) == is_special
        grammar = format.grammar([WEATHER, TIME], "get_weather", tokens.tool_marks)
        matcher, judge = (
            await Grammars(tokens).matcher(grammar),
            Draft202012Validator(WEATHER["function"]["parameters"]),
        )
        for seed in range(6):
            options = GenerationOptions(150, temperature=1.0, seed=seed, grammar=grammar)
            sampler = Sampler(options, Noise(seed), [1], tokens.end_ids, matcher.fresh())
            generator, said = torch.Generator().manual_seed(seed), list[int]()
            while not sampler.is_complete and not tokens.end_ids.intersection(said):
                said.append(sampler.pick(3 * torch.randn(tokens.vocabulary, generator=generator)))
                sampler.read(said[-1:])
            text = tokens.decode(said, frozenset(tokens.tool_marks.values()))
            pieces, (call,) = streamed(format, text, random.Random(seed))
            assert "".join(pieces) == ""
            assert call.name == "get_weather"
            judge.validate(json.loads(call.arguments))

    async def test_where_any_tool_will_do_any_is_called(self) -> None:
        tokens = tokens_of(HERMES)
        matcher = await Grammars(tokens).matcher(format_of("hermes").grammar([WEATHER, TIME]))
        for call in CALLS:
            trial = matcher.fresh()
            trial.read(tokens._tokenizer(written("hermes", (call,)), add_special_tokens=False)["input_ids"])
            assert trial.is_complete

    def test_a_tool_that_there_is_not_cannot_be_named(self) -> None:
        with pytest.raises(InvalidArgument, match="get_lost") as failure:
            format_of("hermes").grammar([WEATHER], "get_lost")
        assert failure.value.facts["param"] == "tool_choice"
