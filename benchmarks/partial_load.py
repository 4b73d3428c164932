"""What a node reads and holds of a model of about 1 GB when it serves a quarter of its blocks.

    python -m benchmarks.partial_load [--threads 1] [--out benchmarks/results]

A Llama of 16 layers with random weights in bfloat16 is written to a temporary folder. Each row is a fresh process that
finds none of the file in the page cache (posix_fadvise), loads blocks with ``load_blocks`` and runs one short prompt
through them: weights that stay maps of the file are read when they are touched, so without that a row would flatter
itself. Then it tells

- ``read``: the pages of the weight files that are in the page cache now (mincore), which were all read for this, the
  kernel's readahead included (a few times ``readahead_bytes``, whatever the size of the model); ``read_by_kernel`` is
  what the kernel itself counted for the process (/proc/self/io);
- ``peak``: the largest resident memory (VmHWM), maps of the file included, less what was resident before loading;
  ``held`` is what is resident at the end;
- ``seconds`` to load, without the step.

All as fractions of the weight files. Their hash is not read here: a node reads all of a model that lies on its disk
once in its life to know its digest; one that has pulled its blocks has nothing else to read.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LAYERS = 16
QUARTER = (4, 8)
MOST_READ, MOST_HELD = 0.35, 0.45
ROWS = (
    # title, layout, blocks, dtype, quantization, whether the targets are for it
    ("all blocks", "one file", (0, LAYERS), "bfloat16", "none", False),
    ("a quarter", "one file", QUARTER, "bfloat16", "none", True),
    ("a quarter", "layers", QUARTER, "bfloat16", "none", True),
    ("a quarter, int8", "one file", QUARTER, "bfloat16", "int8", True),
    ("a quarter, nf4", "one file", QUARTER, "bfloat16", "nf4", True),
    ("a quarter, float32 in memory", "one file", QUARTER, "float32", "none", False),
)


def make_model(folder: Path) -> Path:
    """A random Llama: 16 layers of 30 M parameters each in one file."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=1536,
        intermediate_size=4608,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        num_key_value_heads=12,
        vocab_size=4096,
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    model.save_pretrained(folder, max_shard_size="100GB")
    return folder


def cut_by_layers(model: Path, folder: Path) -> Path:
    """The same model as a node has it on its disk that pulled its quarter from a registry."""
    from discovery.registry.headers import read_header
    from discovery.registry.shards import cut_model

    folder.mkdir()
    weight_map: dict[str, str] = {}
    for shard in cut_model(model).layers[slice(*QUARTER)]:
        with (folder / shard.name).open("wb") as written:
            for chunk in shard.read(0, shard.size):
                written.write(chunk)
        weight_map |= {tensor.name: shard.name for tensor in read_header(folder / shard.name).tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_bytes((model / "config.json").read_bytes())
    return folder


def forget(files: list[Path]) -> None:
    """Throw the files out of the page cache; what is not on the disk yet is written there first."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_bytes(files: list[Path]) -> int:
    """How much of the files is in the page cache (mincore(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    total = 0
    for file in files:
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
            pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
            address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
            if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), pages):
                raise OSError(ctypes.get_errno(), "mincore failed")
            total += sum(page & 1 for page in pages) * mmap.PAGESIZE
    return total


def readahead_bytes(file: Path) -> int:
    """How far the kernel may read beyond what is asked for, round each piece of a file; 0 if it does not say."""
    device = file.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    return int(setting.read_text()) * 1024 if setting.exists() else 0


def measure(model: Path, first: int, end: int, dtype: Any, quantization: Any, threads: int) -> dict[str, Any]:
    """One row, in this process."""
    import torch

    from far_node.blocks.load import load_blocks
    from far_node.blocks.source import ModelSource

    torch.set_num_threads(threads)
    files = sorted(model.glob("*.safetensors"))
    forget(files)
    left = cached_bytes(files)
    source = ModelSource("benchmark", model, "0" * 64)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew: proc(5)
    before, read_before = _resident("VmRSS"), _read_by_kernel()
    started = time.perf_counter()
    blocks = load_blocks(source, first, end, dtype=dtype, quantization=quantization)
    seconds = time.perf_counter() - started
    blocks.run(torch.zeros(1, 4, blocks.hidden_size, dtype=blocks.dtype), blocks.new_cache(), first, end)
    return {
        "read_bytes": cached_bytes(files) - left,
        "read_by_kernel_bytes": _read_by_kernel() - read_before,
        "peak_bytes": _resident("VmHWM") - before,
        "held_bytes": _resident("VmRSS") - before,
        "left_in_cache_bytes": left,
        "readahead_bytes": readahead_bytes(files[0]),
        "seconds": round(seconds, 2),
    }


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _read_by_kernel() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def in_a_fresh_process(model: Path, row: tuple[Any, ...], threads: int) -> dict[str, Any]:
    """What that process tells."""
    (first, end), dtype, quantization = row[2:5]
    command = [sys.executable, __file__, "--row", str(model), str(first), str(end), dtype, quantization, str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--row", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        model, first, end, dtype, quantization, threads = given.row
        print(json.dumps(measure(Path(model), int(first), int(end), dtype, quantization, int(threads))))
        return
    from benchmarks.support.report import commit, keep

    of_commit = commit()
    with tempfile.TemporaryDirectory() as name:
        whole = make_model(Path(name) / "model")
        places = {"one file": whole, "layers": cut_by_layers(whole, Path(name) / "layers")}
        size = sum(file.stat().st_size for file in whole.glob("*.safetensors"))
        results = []
        for row in ROWS:
            title, layout, blocks, dtype, quantization, held_to = row
            told = in_a_fresh_process(places[layout], row, given.threads)
            result = {
                "what": title,
                "layout": layout,
                "blocks": f"{blocks[0]}:{blocks[1]} of {LAYERS}",
                "dtype": dtype,
                "quantization": quantization,
                "read": round(told["read_bytes"] / size, 3),
                "read_by_kernel": round(told["read_by_kernel_bytes"] / size, 3),
                "peak": round(told["peak_bytes"] / size, 3),
                "held": round(told["held_bytes"] / size, 3),
                **told,
            }
            if held_to:
                result["within_targets"] = result["read"] <= MOST_READ and result["peak"] <= MOST_HELD
            results.append(result)
            print(json.dumps(result), flush=True)
    found = {"weight_file_bytes": size, "targets": {"read": MOST_READ, "peak": MOST_HELD}, "loads": results}
    keep(given.out, "partial_load", f"python -m benchmarks.partial_load --threads {given.threads}", of_commit, found)


if __name__ == "__main__":
    main()
