"""``far-node register``: tell a marketplace which machine a node is, signed by the node and by its wallet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from far_node.options import IdentityOption, NameOption, identity_of
from far_node.rewards_cli import (
    DomainOption,
    KeystoreOption,
    PasswordFileOption,
    WalletOption,
    command,
    open_wallet,
)


def register(
    gateway: Annotated[str, typer.Option(envvar="FAR_GATEWAY_URL", help="Address of the marketplace's gateway.")],
    model: Annotated[str, typer.Option(help="The model that the node serves, as the marketplace calls it.")],
    gpu_model: Annotated[str | None, typer.Option(help="What people call the GPU.")] = None,
    vram_gb: Annotated[int | None, typer.Option(min=0, help="Its memory in whole GB.")] = None,
    public_addr: Annotated[str | None, typer.Option(help="Where the node can be reached, HOST:PORT.")] = None,
    location: Annotated[str | None, typer.Option(help="A region such as eu-west, or LAT,LON.")] = None,
    identity: IdentityOption = None,
    name: NameOption = None,
    domain: DomainOption = None,
    wallet: WalletOption = None,
    keystore: KeystoreOption = None,
    password_file: PasswordFileOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say for which wallet this node earns and what it runs on. Requests come by its announcements alone."""
    with command(json) as console:
        from json import dumps

        from discovery.dht.identity import load_identity
        from discovery.protocol.errors import InvalidIdentity
        from discovery.protocol.registration import REGISTRATION, consent_text, sign_request
        from far_node.rewards.gateway import Gateway

        file = identity_of(console, identity, name)
        if not file.expanduser().exists():
            raise InvalidIdentity(f"there is no node's key in {file}: far-node init makes one; or pass --identity")
        node, key, at = load_identity(file), open_wallet(keystore, password_file, wallet), datetime.now(UTC)
        said = {"gpu_model": gpu_model, "vram_gb": vram_gb, "public_addr": public_addr, "location": location}
        with Gateway(gateway, domain) as market:
            audience = market.uri(key.wallet)
            body = {
                "node_id": node.peer_id,
                "wallet_address": key.wallet,
                "model_id": model,
                **{name: value for name, value in said.items() if value is not None},
                "issued_at": at.isoformat(),
                "signature": key.sign_text(consent_text(audience, node.peer_id, key.wallet, at)),
            }
            raw = dumps(body).encode()
            told = market.register(raw, sign_request(node.key, REGISTRATION, audience, raw))
        there = "the swarm hears of it" if told.announced else "the swarm does not hear of it yet: no requests come"
        sentence = f"registered {node.peer_id} for {key.wallet} at {market.url}; {there}"
        facts = {"peer_id": node.peer_id, "wallet": key.wallet, "model_id": model, "announced": told.announced}
        console.event("registered", sentence, **facts)
