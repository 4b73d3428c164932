"""Paying while one reads, over a channel that was opened before (docs/developers.md, "Pay while you read").

FAR_GATEWAY=… FAR_API_KEY=… FAR_CHANNEL=0x… CHANNEL_KEY=0x… python examples/channel.py
"""

import os

from farlabs import FarLabsClient, PrivateKeySigner, format_far

GATEWAY = os.environ.get("FAR_GATEWAY", "http://127.0.0.1:8000")
MODEL = os.environ.get("FAR_MODEL", "far-demo")
CHANNEL = os.environ["FAR_CHANNEL"]
PROMPT = "Tell me a story."

with FarLabsClient(GATEWAY, api_key=os.environ["FAR_API_KEY"]) as client:
    client.look_at_channel(CHANNEL)
    quote = client.quote(MODEL, PROMPT, max_tokens=50)
    pay = client.pay_by_voucher(quote, signer=PrivateKeySigner(os.environ["CHANNEL_KEY"]))

    story = client.generate(
        MODEL, PROMPT, max_tokens=50, payment=f"channel:{CHANNEL}", quote_id=quote.quote_id, on_voucher=pay
    )
    for text in story:
        print(text, end="", flush=True)

    cost, promised = story.result().cost_units, client.channel(CHANNEL).promised_units
    print(f"\n{format_far(cost)} FAR, {format_far(promised)} promised so far")
