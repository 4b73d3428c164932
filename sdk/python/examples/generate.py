"""An answer as it comes, what it cost, and the proof of who did the work.

FAR_GATEWAY=http://127.0.0.1:8000 FAR_API_KEY=sk-far-… python examples/generate.py
"""

import os

from farlabs import FarLabsClient, format_far, verify_receipts

GATEWAY = os.environ.get("FAR_GATEWAY", "http://127.0.0.1:8000")

with FarLabsClient(GATEWAY, api_key=os.environ["FAR_API_KEY"]) as client:
    model = os.environ.get("FAR_MODEL") or next(one.id for one in client.models() if one.available)

    story = client.chat(model, [{"role": "user", "content": "Tell me a story."}], max_tokens=50)
    for text in story:
        print(text, end="", flush=True)

    answer = story.result()
    nodes = len(answer.nodes_used)
    print(f"\n{answer.completion_tokens} tokens from {nodes} nodes for {format_far(answer.cost_units)} FAR")

    proof = verify_receipts(client.receipts(answer.request_id))
    blocks = ", ".join(f"{first}:{end}" for first, end in proof.blocks)
    print(f"signed for: {proof.token_layers} token-layers of blocks {blocks}")
