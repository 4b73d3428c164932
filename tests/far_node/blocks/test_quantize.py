"""Coarser weights take the bytes they should, and stay close."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from discovery.protocol.announcement import Dtype, Quantization
from far_mesh.model.ends import ModelEnds
from far_mesh.model.tokens import Tokens
from far_node.blocks.cut import find_stack, read_config
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.quantize import gpu_int8_linear, matrix_bytes, nf4_linear, targets
from far_node.blocks.run import Blocks
from far_node.blocks.sizes import block_sizes
from far_node.blocks.source import find_model
from far_node.errors import ModelUnsupported
from tests.support.models import KINDS, make_model, whole_model

SPAN = (2, 3)
_WIDE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "head_dim": 32}
_SMALL = {"num_hidden_layers": 4, "num_key_value_heads": 2, "vocab_size": 128, "initializer_range": 0.1}
_ALL_EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 2}  # which are chosen would depend on the rounding
MODELS: dict[str, dict[str, Any]] = {
    "llama": _WIDE,
    "mixtral": _WIDE | _ALL_EXPERTS,
    "gpt_oss": _WIDE | _ALL_EXPERTS,
    "llama4_text": _WIDE | _ALL_EXPERTS | {"intermediate_size_mlp": 512},
    "gpt2": {"n_embd": 256},
    "falcon": {"hidden_size": 256},
    "opt": {"hidden_size": 256, "ffn_dim": 512, "word_embed_proj_dim": 256},
}
# Largest relative error of what a random block adds to the hidden states, measured: int8 0.026, nf4 0.31.
ADDED = {"int8": 0.05, "nf4": 0.5}
# Largest relative error of the bundled model's hidden states after its eight blocks, measured: int8 0.008, nf4 0.13.
BUNDLED = {"int8": 0.02, "nf4": 0.25}
COARSE: tuple[Quantization, ...] = ("int8", "nf4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama that is wide enough for blocks of 64 weights to be quantized together."""
    return make_model(tmp_path_factory.mktemp("models") / "wide", **_WIDE)


@pytest.fixture(scope="module", params=MODELS)
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout of weights: plain, transposed (GPT-2), biased, with experts in each of their layouts."""
    kind = str(request.param)
    directory = tmp_path_factory.mktemp("models") / kind
    if kind in KINDS:
        return make_model(directory, kind, **MODELS[kind])
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **_SMALL, **MODELS[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def load_anew(model: Path, quantization: Quantization, dtype: Dtype = "float32") -> Blocks:
    return load_blocks(find_model(str(model)), *SPAN, quantization=quantization, dtype=dtype)


load = cache(load_anew)


def values(model: Path) -> tuple[int, int, int]:
    """How many values of the span are in matrices, which of them are routers' or biases of experts, and the rest."""
    layers = find_stack(whole_model(model)).layers[slice(*SPAN)]
    matrices = kept = rest = 0
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if parameter.ndim < 2:
                rest += parameter.numel()
            elif "router" in name or ".gate." in name or name.endswith("_bias"):
                kept += parameter.numel()
            else:
                matrices += parameter.numel()
    return matrices, kept, rest


def run(blocks: Blocks, rows: torch.Tensor) -> torch.Tensor:
    """A prefill and two decode steps."""
    cache = blocks.new_cache()
    parts = torch.split(rows.to(blocks.dtype), [rows.shape[1] - 2, 1, 1], dim=1)
    return torch.cat([blocks.run(part, cache, *SPAN) for part in parts], dim=1).float()


def hidden(rows: int = 2, positions: int = 9) -> torch.Tensor:
    return torch.randn(rows, positions, 256, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", COARSE)
def test_every_parameter_is_counted_once(any_model: Path, kind: Quantization) -> None:
    assert (
        load(any_model, kind).parameter_count() == load(any_model, "none").parameter_count() == sum(values(any_model))
    )


def test_int8_takes_a_byte_for_each_weight_and_two_numbers_for_each_row(any_model: Path) -> None:
    matrices, kept, rest = values(any_model)
    held = load(any_model, "int8").parameter_bytes() - 4 * (kept + rest)
    assert matrices < held < 1.05 * matrices + 1000


def test_nf4_takes_four_bits_for_each_weight_and_a_scale_for_64_of_them(any_model: Path) -> None:
    matrices, kept, rest = values(any_model)
    held = load(any_model, "nf4").parameter_bytes() - 4 * (kept + rest)
    assert matrices / 2 + matrices / 32 <= held <= matrices / 2 + matrices / 16 + 1000


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["none", *COARSE])
def test_the_config_tells_what_blocks_will_take(any_model: Path, kind: Quantization, dtype: Dtype) -> None:
    sizes = block_sizes(find_model(str(any_model)), kind, dtype)
    assert sum(sizes[slice(*SPAN)]) == pytest.approx(load(any_model, kind, dtype).parameter_bytes(), rel=0.02)


@torch.inference_mode()
@pytest.mark.parametrize("kind", COARSE)
def test_random_blocks_stay_close_to_full_weights(any_model: Path, kind: Quantization) -> None:
    expected, got = (run(load(any_model, one), hidden()) for one in ("none", kind))
    error = float((got - expected).norm() / (expected - hidden()).norm())
    assert 1e-4 < error < ADDED[kind]


@torch.inference_mode()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", COARSE)
def test_a_row_is_the_same_alone_and_in_a_batch_of_eight(any_model: Path, kind: Quantization, dtype: Dtype) -> None:
    blocks, rows = load(any_model, kind, dtype), hidden(8)
    together = run(blocks, rows)
    alone = torch.cat([run(blocks, rows[index : index + 1]) for index in range(8)])
    assert float((together - alone).norm() / alone.norm()) < (1e-4 if dtype == "float32" else 1e-2)


@torch.inference_mode()
@pytest.mark.parametrize("outputs", [64, 36])
def test_an_input_that_lies_across_in_memory_is_read_right(outputs: int) -> None:
    """Mamba multiplies what it has transposed."""
    generator = torch.Generator().manual_seed(0)
    linear = nf4_linear(torch.randn(outputs, 128, generator=generator))
    across = torch.randn(1, 128, 5, generator=generator).transpose(1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(linear(across), linear(across.contiguous()))


@pytest.mark.parametrize("kind", COARSE)
def test_loading_twice_gives_the_same(any_model: Path, kind: Quantization) -> None:
    assert torch.equal(*(run(load_anew(any_model, kind), hidden()) for _ in range(2)))


@torch.inference_mode()
@pytest.mark.parametrize("kind", COARSE)
def test_the_bundled_model_stays_close_to_full_weights(kind: Quantization) -> None:
    source = find_model("far-demo")
    exact, coarse = (load_blocks(source, 0, 8, quantization=one) for one in ("none", kind))
    ends, tokens = ModelEnds(load_client_model(source)), Tokens.load(source, read_config(source))
    for text in ("Tell me a story about a brave rabbit.", "What is the capital of France?", "7 + 5 ="):
        ids = torch.tensor([tokens.encode(text)])
        caches, start = (exact.new_cache(), coarse.new_cache()), 0
        for chunk in torch.split(ids, [ids.shape[1] - 2, 1, 1], dim=1):
            embedded = ends.embed(chunk, start)
            expected, got = exact.run(embedded, caches[0], 0, 8), coarse.run(embedded, caches[1], 0, 8)
            error = float((got - expected).norm() / expected.norm())
            assert 0 < error < BUNDLED[kind], (text, start)
            start += chunk.shape[1]


class TestWhatIsQuantized:
    """Matrices of the decoder layers, and nothing else."""

    def test_norms_routers_and_the_ends_stay_as_they_are(self, tmp_path: Path) -> None:
        whole = whole_model(make_model(tmp_path, "mixtral"))
        names = {target.name.split(".", 3)[-1] for target in targets(whole, "int8")}
        assert names == {
            *(f"self_attn.{one}_proj.weight" for one in "qkvo"),
            "mlp.experts.gate_up_proj",
            "mlp.experts.down_proj",
        }
        assert all(target.name.startswith("model.layers.") for target in targets(whole, "int8"))

    def test_rows_that_blocks_of_64_do_not_fill_stay_as_they_are_in_nf4(self, tmp_path: Path) -> None:
        """bitsandbytes gives wrong values for them on a CPU."""
        model = make_model(tmp_path, intermediate_size=96)
        whole = whole_model(model)
        kept = {target.name for target in targets(whole, "int8")} - {target.name for target in targets(whole, "nf4")}
        assert {name.split(".", 3)[-1] for name in kept} == {"mlp.down_proj.weight"}
        rows = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0))
        expected, got = (run(load(model, one), rows) for one in ("none", "nf4"))
        assert float((got - expected).norm() / (expected - rows).norm()) < ADDED["nf4"]

    @pytest.mark.parametrize("kind", COARSE)
    def test_odd_sizes_are_no_obstacle(self, tmp_path: Path, kind: Quantization) -> None:
        """24 rows do not fill 32, and 100 columns no blocks of 16."""
        model = make_model(tmp_path, hidden_size=192, intermediate_size=100, num_key_value_heads=1, head_dim=24)
        rows = torch.randn(3, 4, 192, generator=torch.Generator().manual_seed(0))
        expected, got = (run(load(model, one), rows) for one in ("none", kind))
        assert float((got - expected).norm() / (expected - rows).norm()) < ADDED[kind]

    @pytest.mark.parametrize("kind", COARSE)
    def test_a_model_without_weights_in_its_norms_knows_its_type(self, tmp_path: Path, kind: Quantization) -> None:
        from transformers.models.olmo import OlmoConfig, OlmoForCausalLM

        config = OlmoConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, vocab_size=128
        )
        OlmoForCausalLM(config).save_pretrained(tmp_path)
        blocks = load(tmp_path, kind, "bfloat16")
        assert blocks.dtype == torch.bfloat16
        assert blocks.parameter_count() == load(tmp_path, "none").parameter_count()


class TestModelsThatAreQuantizedAlready:
    """Their weights cannot be made anything else."""

    @pytest.fixture
    def quantized(self, model: Path, tmp_path: Path) -> Path:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        whole = AutoModelForCausalLM.from_pretrained(model, quantization_config=config, device_map={"": "cpu"})
        whole.save_pretrained(tmp_path / "quantized")
        return tmp_path / "quantized"

    @pytest.mark.parametrize("kind", COARSE)
    def test_they_are_refused(self, quantized: Path, kind: Quantization) -> None:
        with pytest.raises(ModelUnsupported, match=f"cannot be made {kind}: use --quantization none"):
            load_anew(quantized, kind)

    def test_as_they_are_they_are_served(self, quantized: Path, model: Path) -> None:
        assert torch.allclose(run(load_anew(quantized, "none"), hidden()), run(load(model, "nf4"), hidden()))


class TestTheModuleForAGpu:
    """bitsandbytes runs it on a CPU too."""

    @torch.inference_mode()
    def test_a_row_with_large_values_does_not_change_the_others(self) -> None:
        """LLM.int8 would set columns aside for all rows of the batch."""
        generator = torch.Generator().manual_seed(0)
        linear = gpu_int8_linear(torch.randn(128, 192, generator=generator))
        rows = torch.randn(8, 192, generator=generator)
        alone = linear(rows[1:])
        rows[0, :5] = 50
        assert torch.equal(linear(rows)[1:], alone)

    @torch.inference_mode()
    def test_it_stays_close_and_counts_its_scales(self) -> None:
        generator = torch.Generator().manual_seed(0)
        weight, rows = torch.randn(128, 192, generator=generator), torch.randn(8, 192, generator=generator)
        linear, expected = gpu_int8_linear(weight), rows @ weight.t()
        assert float((linear(rows) - expected).norm() / expected.norm()) < 0.02
        held = [*linear.parameters(), *linear.buffers()]
        assert (
            sum(tensor.nbytes for tensor in held) == matrix_bytes((128, 192), "int8", "cuda:0") == 128 * 192 + 4 * 128
        )


_LOADING = """
import re, sys, threading, time
from far_node.blocks.load import load_blocks
from far_node.blocks.source import find_model
from far_node.errors import ModelUnsupported

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024

def watch():
    global most
    while not done:
        most = max(most, anonymous())
        time.sleep(0.001)

source = find_model(sys.argv[1])
load_blocks(source, 0, 1, quantization="int8")  # what is loaded once, and is no weight
before = most = anonymous()
done = False
watcher = threading.Thread(target=watch)
watcher.start()
blocks = load_blocks(source, 0, 8, quantization="int8")
after = anonymous()
done = True
watcher.join()
print(blocks.parameter_bytes(), most - before, after - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_no_more_than_a_layer_is_in_memory_in_full_while_loading(tmp_path: Path, kind: str) -> None:
    experts = {"num_local_experts": 8} if kind == "mixtral" else {}
    inner = 320 if experts else 2560
    model = make_model(tmp_path, kind, hidden_size=768, intermediate_size=inner, num_hidden_layers=8, **experts)
    layer = max(block_sizes(find_model(str(model)), "none"))
    child = subprocess.run(
        [sys.executable, "-c", _LOADING, str(model)], env=os.environ, capture_output=True, text=True, check=True
    )
    held, most, after = (int(number) for number in child.stdout.split())
    slack = 12 << 20
    assert after < held + slack
    assert most < held + 1.5 * layer + slack  # experts are put together before they are quantized
    assert held + 1.5 * layer + slack < 0.6 * 8 * layer
