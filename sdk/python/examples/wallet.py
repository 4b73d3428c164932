"""Signing in with a wallet, looking at the money, and making a key for a program.

FAR_GATEWAY=http://127.0.0.1:8000 WALLET_PRIVATE_KEY=0x… python examples/wallet.py
"""

import os

from farlabs import FarLabsClient, FarLabsError, format_far

GATEWAY = os.environ.get("FAR_GATEWAY", "http://127.0.0.1:8000")

with FarLabsClient(GATEWAY, private_key=os.environ["WALLET_PRIVATE_KEY"]) as client:
    balance = client.balance()  # signs in when it has to, and again in time
    available = format_far(balance.available_units)
    print(f"{client.wallet_address} has {available} FAR; more goes to {balance.escrow_address} on {balance.chain}")

    made = client.create_api_key("nightly report", limits={"units_per_day": 1_000_000_000})
    print(f"a key for a program: {made.key[:8]}…, shown this once")

    client.revoke_api_key(made.id)
    with FarLabsClient(GATEWAY, api_key=made.key) as program:
        try:
            program.quote("any", "Hello")
        except FarLabsError as error:
            print(f"revoked, and refused: {error.code}")
    client.sign_out()
