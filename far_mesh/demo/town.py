"""Start what the demo needs: bootstrap peer, nodes, chain with contracts, gateway. Each is a process of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from far_mesh.demo.config import PRICE_UNITS, DemoConfig, NodePlan
from far_mesh.demo.processes import ProcessGroup
from far_mesh.demo.store import DemoStore
from far_mesh.demo.tools import anvil_roots
from far_mesh.marketplace.chain.anvil import CHAIN_ID, Anvil, dev_key
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.deploy import Deployment, deploy

DEPLOYER = dev_key(0)
SETTLER = dev_key(1)
LOCAL_MADDR = "/ip4/127.0.0.1/tcp/0"


@dataclass(frozen=True)
class Town:
    """What stands when all is ready."""

    rpc_url: str
    contracts: Deployment
    bootstrap: str
    nodes: tuple[dict[str, Any], ...]
    gateway_url: str
    model_id: str
    group: ProcessGroup


async def start_chain(store: DemoStore, stack: AsyncExitStack) -> tuple[str, Deployment]:
    """anvil with its state file, ended by ``stack``, and the contracts on it; its URL and theirs."""
    roots = await asyncio.to_thread(anvil_roots, store.directory)
    anvil = await Anvil.start(store.chain / "state.json", roots=roots, log=store.logs / "anvil.log")
    stack.push_async_callback(anvil.stop)
    contracts = await deploy(anvil.rpc_url, CHAIN_ID, DEPLOYER, address_of(SETTLER), store.chain / "contracts.json")
    await anvil.give_gas(store.wallet("user"))
    return anvil.rpc_url, contracts


async def start_bootstrap(store: DemoStore, group: ProcessGroup) -> str:
    """The peer that all others are given; its address."""
    arguments = ["--json", "--host-maddr", LOCAL_MADDR, "--identity", str(store.identity("bootstrap"))]
    child = await group.start("bootstrap", "discovery.cli", ["bootstrap", *arguments])
    return str((await child.ready())["maddrs"][0])


async def start_node(
    config: DemoConfig, store: DemoStore, group: ProcessGroup, plan: NodePlan, bootstrap: str
) -> dict[str, Any]:
    """One node of the swarm; its ready event."""
    child = await group.start(plan.name, "far_node.cli", _node_arguments(config, store, plan, bootstrap))
    return await child.ready()


def _node_arguments(config: DemoConfig, store: DemoStore, plan: NodePlan, bootstrap: str) -> list[str]:
    first, end = plan.blocks
    options = {
        "--model": config.model,
        "--wallet": store.wallet(plan.name),
        "--initial-peers": bootstrap,
        "--blocks": f"{first}:{end}",
        "--quantization": plan.quantization,
        "--identity": str(store.identity(plan.name)),
        "--host-maddr": LOCAL_MADDR,
        "--threads": "1",
        "--drain-timeout": "5",  # the demo waits for nobody much longer
    }
    return ["start", "--json", *(word for pair in options.items() for word in pair)]


async def start_gateway(
    config: DemoConfig, store: DemoStore, group: ProcessGroup, *, rpc_url: str, contracts: Deployment, bootstrap: str
) -> str:
    """The marketplace on 127.0.0.1; its URL."""
    offer = {"model": config.model, "prompt_price_units": PRICE_UNITS, "completion_price_units": PRICE_UNITS}
    env = {
        "FAR_CONFIG": "",  # that of another gateway
        "FAR_DATA_DIR": str(store.gateway),
        "FAR_HOST": "127.0.0.1",
        "FAR_PORT": str(config.port),
        "FAR_CHAIN_RPC_URL": rpc_url,
        "FAR_CHAIN_ID": str(contracts.chain_id),
        "FAR_TOKEN_ADDRESS": contracts.token,
        "FAR_ESCROW_ADDRESS": contracts.escrow,
        "FAR_CHAIN_START_BLOCK": str(contracts.block),
        "FAR_SETTLER_PRIVATE_KEY": SETTLER,
        "FAR_SETTLE_SECONDS": "1",  # on a real chain it is an hour, so that many requests share a transaction
        "FAR_JWT_SECRET": store.secret("jwt"),
        "FAR_INITIAL_PEERS": json.dumps([bootstrap]),
        "FAR_MODELS": json.dumps([offer]),
        "OMP_NUM_THREADS": "1",
    }
    store.gateway.mkdir(parents=True, exist_ok=True)
    gateway = await group.start("gateway", "far_mesh.cli", ["serve", "--json"], env)
    return str((await gateway.ready())["url"])


def model_argument(model: str) -> str:
    """A relative directory is made absolute: children have their own ideas of where they are."""
    directory = Path(model).expanduser()
    return str(directory.absolute()) if directory.is_dir() else model
