"""Put the token and the escrow on a chain, once; the addresses are kept in a file and used again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eth_account import Account
from web3 import AsyncHTTPProvider, AsyncWeb3

from far_mesh.marketplace.chain.abi import artifact
from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.errors import ChainUnavailable, TransactionReverted

DEFAULT_FEE_BPS = 2_000
SUPPLY_UNITS = 1_000_000_000 * 10**9
RELEASE_CAP_UNITS_PER_DAY = 10_000_000 * 10**9


@dataclass(frozen=True)
class Deployment:
    """Where the contracts are. ``block`` is where to begin to look for events."""

    chain_id: int
    token: str
    escrow: str
    block: int


async def deploy(
    rpc_url: str, chain_id: int, deployer_key: str, settler: str, record: Path, *, fee_bps: int = DEFAULT_FEE_BPS
) -> Deployment:
    """The contracts recorded in ``record`` if they are on this chain, else fresh ones. The deployer gets the supply
    and is admin, pauser and treasurer.

    Raises:
        ChainUnavailable: the chain does not answer.
        TransactionReverted: the chain refused a deployment.
    """
    web3: AsyncWeb3[AsyncHTTPProvider] = AsyncWeb3(AsyncHTTPProvider(rpc_url))
    try:
        known = _read(record, chain_id)
        if known and await web3.eth.get_code(web3.to_checksum_address(known.escrow)):
            return known
        fresh = await _deploy_both(web3, chain_id, deployer_key, settler, fee_bps)
    except OSError as error:
        raise ChainUnavailable(f"the chain at {rpc_url} does not answer") from error
    finally:
        await web3.provider.disconnect()
    _write(record, fresh)
    return fresh


async def _deploy_both(
    web3: AsyncWeb3[AsyncHTTPProvider], chain_id: int, key: str, settler: str, fee_bps: int
) -> Deployment:
    admin = address_of(key)
    token, block = await _create(web3, chain_id, key, "FarToken", (admin, units_to_wei(SUPPLY_UNITS)))
    cap = units_to_wei(RELEASE_CAP_UNITS_PER_DAY)
    escrow, _ = await _create(
        web3, chain_id, key, "InferenceEscrow", (token, 0, admin, settler, admin, admin, fee_bps, cap)
    )
    return Deployment(chain_id, token, escrow, block)


async def _create(
    web3: AsyncWeb3[AsyncHTTPProvider], chain_id: int, key: str, name: str, arguments: tuple[Any, ...]
) -> tuple[str, int]:
    found = artifact(name)
    sender = web3.to_checksum_address(address_of(key))
    constructor = web3.eth.contract(abi=found["abi"], bytecode=found["bytecode"]).constructor(*arguments)
    transaction = await constructor.build_transaction(
        {"from": sender, "chainId": chain_id, "nonce": await web3.eth.get_transaction_count(sender)}
    )
    signed = Account.sign_transaction(transaction, key)
    receipt = await web3.eth.wait_for_transaction_receipt(await web3.eth.send_raw_transaction(signed.raw_transaction))
    if receipt["status"] != 1 or not receipt["contractAddress"]:
        raise TransactionReverted(f"the chain refused to create {name}", reason="creation reverted")
    return str(receipt["contractAddress"]), receipt["blockNumber"]


def _write(record: Path, deployment: Deployment) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(asdict(deployment), indent=2) + "\n")


def _read(record: Path, chain_id: int) -> Deployment | None:
    try:
        found = Deployment(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.chain_id == chain_id else None
