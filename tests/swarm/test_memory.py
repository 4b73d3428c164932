"""A machine that serves a quarter of a model pays for a quarter of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.swarm import run_python

pytestmark = pytest.mark.swarm

BLOCKS = 8
HIDDEN = 1024

# Loads as a node does, touches every page by a step, and tells. float32 of a bfloat16 file is a copy, not a map.
_HOLD = """
import json, sys, psutil, torch
torch.set_num_threads(1)
from far_node.blocks.load import load_blocks
from far_node.blocks.source import ModelSource
from pathlib import Path
path, first, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
before = psutil.Process().memory_info().rss
blocks = load_blocks(ModelSource("big", path, "0" * 64), first, end)
blocks.run(torch.zeros(1, 4, blocks.hidden_size), blocks.new_cache(), first, end)
after = psutil.Process().memory_info().rss
with open(f"/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps({"held": after - before, "peak": peak - before, "parameters": blocks.parameter_count()}))
"""


@pytest.fixture(scope="module")
def big_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 llama of some 230 MB: 460 MB as float32."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=HIDDEN,
        intermediate_size=3072,
        num_hidden_layers=BLOCKS,
        num_attention_heads=8,
        num_key_value_heads=8,
        dtype=torch.bfloat16,
    )
    path = tmp_path_factory.mktemp("models") / "big"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    return path


def hold(model: Path, first: int, end: int) -> dict[str, int]:
    ended = run_python(_HOLD, str(model), str(first), str(end))
    assert ended.status == 0, ended.err
    told: dict[str, int] = json.loads(ended.out)
    return told


def test_a_quarter_of_the_blocks_takes_about_a_quarter_of_the_memory(big_model: Path) -> None:
    all_of_it, quarter = hold(big_model, 0, BLOCKS), hold(big_model, 2, 2 + BLOCKS // 4)
    assert quarter["parameters"] * 4 == all_of_it["parameters"]
    missing = (all_of_it["parameters"] - quarter["parameters"]) * 4
    assert missing > 250_000_000
    assert all_of_it["held"] - quarter["held"] > 0.9 * missing
    assert all_of_it["peak"] - quarter["peak"] > 0.9 * missing, "nor is more than its blocks ever held while it loads"
