"""A GGUF file is served as the model it was made from: its blocks, its ends, its words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama import LlamaConfig

from discovery.protocol.announcement import Quantization
from discovery.protocol.errors import WeightsDamaged
from far_mesh.config import GenerationOptions
from far_mesh.model.tokens import Tokens
from far_node.blocks.cut import read_config
from far_node.blocks.gguf import read_header
from far_node.blocks.imported import SUPPORTED
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.sizes import block_sizes
from far_node.blocks.source import ModelSource, block_count_of, bundled_model_path, find_model
from far_node.errors import ModelUnsupported
from far_node.models.part import ENDS, Part
from tests.support.gguf import NAMES, write_gguf
from tests.support.models import BUNDLED_VOCABULARY, greedy, whole_model
from tests.support.ring import a_ring

BLOCKS = 4
SPANS = ((0, BLOCKS), (0, 1), (1, 3), (3, BLOCKS))
_SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": BUNDLED_VOCABULARY,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_SPECIAL: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 64},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True},
}


@cache
def model_of(kind: str, directory: Path, **settings: Any) -> Path:
    """A random model, saved as transformers does it."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **_SMALL | _SPECIAL.get(kind, {}) | settings)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases are ones and zeros otherwise, and nobody would miss them
                parameter.add_(torch.randn_like(parameter) * 0.1)
            if "embed_tokens" in name:
                parameter.mul_(10)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imported")


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def llama(directory: Path) -> Path:
    """In eight bits."""
    return file_of("llama", directory, "Q8_0")


@cache
def file_of(kind: str, directory: Path, weights: str) -> Path:
    return write_gguf(model_of(kind, directory / kind), directory / f"{kind}-{weights}.gguf", weights)


@cache
def found(path: Path) -> ModelSource:
    """Found once: words and config of a file take a second to make."""
    return find_model(str(path))


def hidden() -> Tensor:
    return torch.randn(2, 7, 128, generator=torch.Generator().manual_seed(0))


def run(source: ModelSource, span: tuple[int, int], quantization: Quantization = "none") -> Tensor:
    blocks = load_blocks(source, *span, quantization=quantization)
    sessions = blocks.new_cache()
    return torch.cat([blocks.run(part, sessions, *span) for part in torch.split(hidden(), [5, 1, 1], dim=1)], dim=1)


def made_whole(source: ModelSource, directory: Path) -> ModelSource:
    """The same weights as transformers reads them from the whole file, saved in full."""
    assert source.gguf is not None
    config = read_config(source)
    read = AutoModelForCausalLM.from_pretrained(source.gguf.parent, gguf_file=source.gguf.name, config=config)
    model = AutoModelForCausalLM.from_config(config)  # which can be saved
    model.load_state_dict(read.state_dict())
    model.save_pretrained(directory)
    return find_model(str(directory))


class TestBlocks:
    """What a node serves."""

    def test_all_architectures_that_are_taken_are_tried_here(self) -> None:
        assert set(SUPPORTED) == set(NAMES.values())

    @pytest.mark.parametrize("span", SPANS)
    def test_plain_weights_are_those_of_the_model(self, kind: str, span: tuple[int, int], directory: Path) -> None:
        original, imported = (found(make(kind, directory)) for make in (_original, _plain))
        assert torch.equal(run(imported, span), run(original, span))

    @pytest.mark.parametrize(("weights", "bound"), [("F16", 1e-3), ("Q8_0", 0.03), ("Q4_0", 0.4)])
    def test_coarse_weights_are_made_whole_as_transformers_does_it(
        self, kind: str, weights: str, bound: float, directory: Path, tmp_path: Path
    ) -> None:
        imported = found(file_of(kind, directory, weights))
        whole = made_whole(imported, tmp_path / "whole")
        for span in SPANS:
            assert torch.equal(run(imported, span), run(whole, span)), span
        if kind != "qwen3_moe":  # there other experts may be chosen
            original = run(found(_original(kind, directory)), SPANS[0])
            error = float((run(imported, SPANS[0]) - original).norm() / (original - hidden()).norm())
            assert 1e-5 < error < bound

    @pytest.mark.parametrize("quantization", ["int8", "nf4"])
    def test_they_can_be_quantized_again(self, kind: str, quantization: Quantization, directory: Path) -> None:
        original, imported = (found(make(kind, directory)) for make in (_original, _plain))
        assert torch.equal(run(imported, (1, 3), quantization), run(original, (1, 3), quantization))
        of_file, of_model = (load_blocks(one, 1, 3, quantization=quantization) for one in (imported, original))
        assert of_file.parameter_bytes() == of_model.parameter_bytes()
        assert of_file.parameter_count() == of_model.parameter_count()
        assert sum(block_sizes(imported, quantization)[1:3]) == pytest.approx(of_file.parameter_bytes(), rel=0.02)

    def test_other_blocks_are_not_read(self, llama: Path, tmp_path: Path) -> None:
        source = found(llama)
        expected = run(source, (1, 3))
        header, damaged = read_header(llama), bytearray(llama.read_bytes())
        for tensor in header.tensors:
            if tensor.block not in (1, 2):
                start = header.data_start + tensor.offset
                damaged[start : start + tensor.bytes] = b"\xff" * tensor.bytes
        (tmp_path / "damaged.gguf").write_bytes(damaged)
        moved = ModelSource(source.id, source.path, source.digest, gguf=tmp_path / "damaged.gguf")
        assert torch.equal(run(moved, (1, 3)), expected)

    def test_nothing_is_left_behind(self, llama: Path, far_cache: Path) -> None:
        source = find_model(str(llama))
        run(source, (1, 3), "int8")
        assert [path.name for path in (far_cache / "gguf").iterdir()] == [source.path.name]
        names = {path.name for path in source.path.iterdir()}
        assert names == {"config.json", "tokenizer.json", "tokenizer_config.json"}

    def test_a_node_needs_no_words(self, llama: Path) -> None:
        source = find_model(str(llama), part=Part(1, 3))
        assert [path.name for path in source.path.iterdir()] == ["config.json"]
        assert torch.equal(run(source, (1, 3)), run(found(llama), (1, 3)))
        assert source.digest == found(llama).digest


def _original(kind: str, directory: Path) -> Path:
    return model_of(kind, directory / kind)


def _plain(kind: str, directory: Path) -> Path:
    return file_of(kind, directory, "F32")


class TestEnds:
    """What a client loads."""

    def test_embeddings_and_head_are_those_of_the_model(self, kind: str, directory: Path) -> None:
        imported, original = (
            load_client_model(found(make(kind, directory))).state_dict() for make in (_plain, _original)
        )
        assert imported.keys() == original.keys()
        assert all(torch.equal(imported[name], original[name]) for name in imported)

    def test_a_head_that_is_not_in_the_file_is_the_embeddings(self, directory: Path, tmp_path: Path) -> None:
        model = model_of("qwen2", directory / "tied", tie_word_embeddings=True)
        imported = load_client_model(find_model(str(write_gguf(model, tmp_path / "tied.gguf", "F32"))))
        original = load_client_model(find_model(str(model)))
        assert torch.equal(imported.lm_head.weight, imported.get_input_embeddings().weight)
        assert torch.equal(imported.lm_head.weight, original.lm_head.weight)

    def test_words_and_ends_are_those_of_the_file(self, llama: Path) -> None:
        source, bundled = found(llama), found(bundled_model_path())
        tokens, known = (Tokens.load(one, read_config(one)) for one in (source, bundled))
        text = "Tell me a story about 12 brave rabbits, Otto!"
        assert tokens.encode(text) == known.encode(text, raw=True)
        assert tokens.decode(tokens.encode(text)) == text
        assert tokens.end_ids == {2}

    def test_every_token_that_ends_a_turn_is_an_end(self, directory: Path, tmp_path: Path) -> None:
        def edit(writer: gguf.GGUFWriter) -> None:
            writer.add_eot_token_id(7)

        file = write_gguf(model_of("llama", directory / "llama"), tmp_path / "x.gguf", "Q8_0", edit)
        source = find_model(str(file))
        assert Tokens.load(source, read_config(source)).end_ids == {2, 7}

    async def test_a_node_with_all_blocks_says_what_transformers_says(self, llama: Path, tmp_path: Path) -> None:
        whole = whole_model(made_whole(found(llama), tmp_path / "whole").path)
        for spans in (((0, BLOCKS),), ((0, 1), (1, BLOCKS))):
            async with a_ring(llama, *spans) as ring:
                mesh = await ring.mesh()
                ids = mesh.encode("Once upon a time there was a brave rabbit")
                options = GenerationOptions(max_tokens=24)
                tokens = [token.id async for token in mesh.generate(ids, options)]
                await mesh.close()
            expected = greedy(whole, ids, 24)
            assert tokens == expected[: len(tokens)]
            assert len(tokens) == 24 or tokens[-1] == 2
            assert len(set(expected)) > 8, "a model that repeats itself shows nothing"


class TestIdentity:
    """Which model it is."""

    def test_it_is_called_as_its_file_or_as_its_owner_says(self, llama: Path) -> None:
        assert found(llama).id == "llama-Q8_0"
        assert find_model(str(llama), "acme/llama").id == "acme/llama"
        assert block_count_of(found(llama)) == BLOCKS

    def test_the_same_file_under_another_name_is_the_same_model(self, llama: Path, tmp_path: Path) -> None:
        shutil.copy(llama, tmp_path / "other.gguf")
        assert find_model(str(tmp_path / "other.gguf")).digest == found(llama).digest

    def test_other_weights_are_another_model(self, llama: Path, directory: Path) -> None:
        digests = {found(file_of("llama", directory, weights)).digest for weights in ("Q8_0", "Q4_0", "F16")}
        assert len(digests) == 3
        assert found(_original("llama", directory)).digest not in digests

    def test_what_was_made_of_it_is_kept(self, llama: Path) -> None:
        made = find_model(str(llama)).path / "config.json"
        before = made.stat().st_mtime_ns
        assert find_model(str(llama)).path / "config.json" == made
        assert made.stat().st_mtime_ns == before


Edit = Callable[[gguf.GGUFWriter], None]


class TestRefusing:
    """Files that would be read wrongly."""

    def import_(self, directory: Path, out: Path, edit: Edit | None = None, **settings: Any) -> ModelSource:
        name = "-".join(["llama", *settings])
        return find_model(str(write_gguf(model_of("llama", directory / name, **settings), out, "F32", edit)))

    def test_an_architecture_that_nobody_compared_is_refused(self, tmp_path: Path) -> None:
        writer = gguf.GGUFWriter(tmp_path / "x.gguf", "gemma2")
        writer.add_block_count(1)
        writer.add_tensor("blk.0.attn_q.weight", np.zeros((32, 32), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ModelUnsupported, match="'gemma2' are not supported, only of llama, qwen2"):
            find_model(str(tmp_path / "x.gguf"))

    def test_the_frequencies_of_llama_3_are_understood(self, directory: Path, tmp_path: Path) -> None:
        rope = {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        config = LlamaConfig(**_SMALL, rope_parameters=rope)
        plain = 500000.0 ** (-torch.arange(0, 32, 2) / 32)
        divisors = plain / ROPE_INIT_FUNCTIONS["llama3"](config, None)[0]
        assert divisors.max() > 30

        def edit(writer: gguf.GGUFWriter) -> None:
            writer.add_tensor("rope_freqs.weight", divisors.numpy().astype(np.float32))

        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
        imported = find_model(str(write_gguf(tmp_path / "model", tmp_path / "x.gguf", "F32", edit)))
        stored = json.loads((imported.path / "config.json").read_text())["rope_parameters"]
        assert stored == pytest.approx(rope)
        assert torch.equal(run(imported, (0, 2)), run(find_model(str(tmp_path / "model")), (0, 2)))

    @pytest.mark.parametrize("divisors", [np.full(16, 2.0), np.linspace(1, 8, 16), np.ones(8), np.ones(17)])
    def test_other_frequencies_are_refused(self, divisors: Any, directory: Path, tmp_path: Path) -> None:
        def edit(writer: gguf.GGUFWriter) -> None:
            writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))

        with pytest.raises(ModelUnsupported, match="rotary frequencies"):
            self.import_(directory, tmp_path / "x.gguf", edit)

    def test_scaled_positions_are_refused(self, directory: Path, tmp_path: Path) -> None:
        def edit(writer: gguf.GGUFWriter) -> None:
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(4.0)

        with pytest.raises(ModelUnsupported, match="rotary frequencies"):
            self.import_(directory, tmp_path / "x.gguf", edit)

    def test_experts_under_the_name_of_llama_are_refused(self, directory: Path, tmp_path: Path) -> None:
        """Mixtral's files are so; transformers would make a model without experts of them."""
        with pytest.raises(ModelUnsupported, match="experts"):
            self.import_(directory, tmp_path / "x.gguf", lambda writer: writer.add_expert_count(8))

    def test_a_file_without_words_can_be_served_but_not_asked(self, directory: Path, tmp_path: Path) -> None:
        file = write_gguf(_original("llama", directory), tmp_path / "x.gguf", "F32")
        content = file.read_bytes().replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz")
        file.write_bytes(content)
        run(find_model(str(file), part=Part(0, 1)), (0, 1))
        with pytest.raises(ModelUnsupported, match=r"the tokenizer in x\.gguf"):
            find_model(str(file), part=ENDS)

    def test_missing_weights_are_named(self, directory: Path, tmp_path: Path) -> None:
        file = write_gguf(_original("llama", directory), tmp_path / "x.gguf", "F32")
        file.write_bytes(file.read_bytes().replace(b"blk.2.ffn_up.weight", b"blk.2.ffn_xx.weight"))
        source = find_model(str(file))
        run(source, (0, 2))
        with pytest.raises(ModelUnsupported, match=r"layers\.2\.mlp\.up_proj"):
            run(source, (1, 3))

    def test_a_cache_that_cannot_be_written_is_named(
        self, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "cache").write_text("")
        monkeypatch.setenv("FAR_CACHE_DIR", str(tmp_path / "cache"))
        with pytest.raises(ModelUnsupported, match="cannot be kept"):
            find_model(str(llama))

    def test_a_file_that_is_none_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(1000))
        with pytest.raises(WeightsDamaged):
            find_model(str(tmp_path / "x.gguf"))
