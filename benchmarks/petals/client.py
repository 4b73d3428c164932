"""Texts through a Petals swarm; run by ``benchmarks.petals.compare`` with the interpreter that has Petals.

    python client.py MODEL PEER

For each line of JSON (``ids``, ``tokens``) that comes in, one goes out: the text's ``ids`` and the ``seconds`` of all
tokens after the first.
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch
from petals import AutoDistributedModelForCausalLM  # type: ignore[import-not-found]  # in an environment of its own


def main() -> None:
    model_path, peer = sys.argv[1:]
    torch.set_num_threads(1)
    model = AutoDistributedModelForCausalLM.from_pretrained(
        model_path, initial_peers=[peer], dht_prefix="benchmark", torch_dtype=torch.float32
    )
    print(json.dumps({"event": "ready"}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        ids, tokens = torch.tensor([asked["ids"]]), asked["tokens"]
        with model.inference_session(max_length=len(asked["ids"]) + tokens):
            text = model.generate(ids, max_new_tokens=1, do_sample=False)[0].tolist()[-1:]
            started = time.perf_counter()
            text += model.generate(None, max_new_tokens=tokens - 1, do_sample=False)[0].tolist()[1 - tokens :]
            seconds = time.perf_counter() - started
        print(json.dumps({"ids": text, "seconds": seconds}), flush=True)
    os._exit(0)  # its threads do not end by themselves


if __name__ == "__main__":
    main()
