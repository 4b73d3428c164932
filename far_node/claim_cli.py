"""``far-node claim``: bind this node to the wallet that it earns for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from far_node.options import IdentityOption, NameOption
from far_node.rewards_cli import DomainOption, KeystoreOption, PasswordFileOption, command, open_wallet

if TYPE_CHECKING:
    from discovery.protocol.claim import NodeClaim


def claim(
    gateway: Annotated[str, typer.Option(envvar="FAR_GATEWAY_URL", help="Address of the marketplace's gateway.")],
    wallet: Annotated[
        str | None,
        typer.Option(help="The wallet that is paid, 0x…; default: that of the keystore, or of the settings."),
    ] = None,
    dashboard: Annotated[
        str | None, typer.Option(envvar="FAR_DASHBOARD_URL", help="Where the link leads; default: the gateway.")
    ] = None,
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="The link can be used for so long.")] = 30,
    qr: Annotated[bool, typer.Option(help="Draw the link as a QR code, where somebody is looking.")] = True,
    identity: IdentityOption = None,
    name: NameOption = None,
    domain: DomainOption = None,
    keystore: KeystoreOption = None,
    password_file: PasswordFileOption = None,
    private_key_env: Annotated[
        str | None, typer.Option("--private-key-env", hidden=True, help="Refused: see the answer.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say for which wallet this node earns: by a link that its owner opens and signs, or here by a keystore."""
    with command(json) as console:
        from discovery.dht.identity import load_identity
        from discovery.protocol.claim import NodeClaim
        from discovery.protocol.errors import InvalidArgument, InvalidIdentity
        from discovery.protocol.ids import Wallet, check_wallet
        from far_node.rewards.gateway import Gateway
        from far_node.settings import Place, check, find_identity, gather

        if private_key_env is not None:
            raise InvalidArgument(
                "a wallet's key is not taken from the environment for a claim: every program that you start could read "
                "it, and it stays in logs and histories. Leave the key where it is and open the link that far-node "
                "claim prints, or pass --keystore FILE, which is opened by a password"
            )
        place = Place.of(name)
        path = find_identity(place, identity).expanduser()
        if not path.exists():
            raise InvalidIdentity(f"there is no node's key in {path}: far-node start makes one; or pass --identity")
        node = load_identity(path)
        key = None if keystore is None else open_wallet(keystore, password_file, wallet)
        settings, _ = check(gather({}, place), needed=False, addresses=False)
        named = wallet or settings.wallet
        if key is None and named is None:
            raise InvalidArgument("pass --wallet: the address that the node earns for; or --keystore FILE")
        owner: Wallet = key.wallet if key is not None else check_wallet(named or "")
        with Gateway(gateway, domain) as market:
            uri, chain_id = market.place(owner)
            now = time.time()
            made = NodeClaim(node.peer_id, owner, uri, chain_id, int(now * 1000), int(now) + 60 * minutes)
            half = made.signed_by_node(node.key)
            facts = {"peer_id": node.peer_id, "wallet": owner, "gateway": uri, "deadline": made.deadline}
            if key is not None:
                told = market.claim(document(made, half, key.sign_typed(made.typed_data())))
                there = "the swarm hears of it" if told.announced else "the swarm does not hear of it yet"
                sentence = f"{node.peer_id} earns for {owner}, as both say at {market.url}; {there}"
                console.event("claimed", sentence, **facts, announced=told.announced)
                return
        link = f"{(dashboard or gateway).rstrip('/')}/claim#{made.fragment(half)}"
        picture = f"\n{_drawn(link)}" if qr and not json else ""
        sentence = f"Open this within {minutes} minutes where the wallet {owner} is, and sign:\n\n{link}\n{picture}"
        console.event("link", sentence, **facts, link=link, typed_data=made.typed_data(), node_signature=half)


def document(claim: NodeClaim, node_signature: str, signature: str) -> dict[str, object]:
    """A claim as the gateway takes it."""
    return {
        "node_id": claim.node,
        "wallet_address": claim.wallet,
        "gateway": claim.gateway,
        "chain_id": claim.chain_id,
        "nonce": claim.nonce,
        "deadline": claim.deadline,
        "node_signature": node_signature,
        "signature": signature,
    }


def _drawn(link: str) -> str:
    """A QR code in half blocks, for a terminal. It has to stay small and nobody prints it: error correction L."""
    import io

    import segno

    out = io.StringIO()
    segno.make_qr(link, error="l", boost_error=False).terminal(out, compact=True, border=2)
    return out.getvalue()
