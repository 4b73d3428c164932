"""Start what the demo needs: bootstrap peer, nodes, chain with contracts, gateway. Each is a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from far_mesh.demo.config import PRICE_UNITS, DemoConfig, NodePlan, plan_nodes
from far_mesh.demo.processes import ProcessGroup
from far_mesh.demo.store import DemoStore
from far_mesh.demo.tools import anvil_roots
from far_mesh.marketplace.chain.anvil import CHAIN_ID, Anvil, dev_key
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.deploy import Deployment, deploy
from far_node.blocks.cut import ModelShape, read_config, shape_of
from far_node.blocks.source import ModelSource, find_model

DEPLOYER = dev_key(0)
SETTLER = dev_key(1)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Town:
    """What stands when all is ready."""

    rpc_url: str
    contracts: Deployment
    bootstrap: str
    nodes: tuple[dict[str, Any], ...]
    gateway_url: str
    model_id: str


def look_at_model(model: str) -> tuple[ModelSource, ModelShape]:
    """Find the model before anything is started.

    Raises:
        ModelNotFound, ModelUnsupported, UnsafeWeights: it cannot be served.
    """
    source = find_model(model)
    return source, shape_of(read_config(source))


async def start_chain(store: DemoStore) -> tuple[Anvil, Deployment]:
    """anvil with its state file, and the contracts on it."""
    roots = await asyncio.to_thread(anvil_roots, store.directory)
    anvil = await Anvil.start(store.chain / "state.json", roots=roots, log=store.logs / "anvil.log")
    try:
        record = store.chain / "contracts.json"
        contracts = await deploy(anvil.rpc_url, CHAIN_ID, DEPLOYER, address_of(SETTLER), record)
        await anvil.give_gas(store.wallet("user"))
    except BaseException:
        await anvil.stop()
        raise
    return anvil, contracts


async def start_swarm(
    config: DemoConfig, store: DemoStore, group: ProcessGroup, block_count: int, say: Say
) -> tuple[str, tuple[dict[str, Any], ...]]:
    """A bootstrap peer and the nodes; its address, and the nodes' ready events in route order."""
    say("bootstrap peer")
    bootstrap = await group.start(
        "bootstrap",
        "discovery.cli",
        ["bootstrap", "--json", "--host-maddr", "/ip4/127.0.0.1/tcp/0", "--identity", str(store.identity("bootstrap"))],
    )
    maddr = str((await bootstrap.ready())["maddrs"][0])
    plans = plan_nodes(config.nodes, block_count)
    say(f"{len(plans)} nodes: loading blocks")
    children = [
        await group.start(plan.name, "far_node.cli", _node_arguments(config, store, plan, maddr)) for plan in plans
    ]
    return maddr, tuple(await asyncio.gather(*(child.ready() for child in children)))


def _node_arguments(config: DemoConfig, store: DemoStore, plan: NodePlan, bootstrap: str) -> list[str]:
    first, end = plan.blocks
    options = {
        "--model": config.model,
        "--wallet": store.wallet(plan.name),
        "--initial-peers": bootstrap,
        "--blocks": f"{first}:{end}",
        "--quantization": plan.quantization,
        "--identity": str(store.identity(plan.name)),
        "--host-maddr": "/ip4/127.0.0.1/tcp/0",
        "--threads": "1",
    }
    return ["start", "--json", *(word for pair in options.items() for word in pair)]


async def start_gateway(
    config: DemoConfig, store: DemoStore, group: ProcessGroup, *, rpc_url: str, contracts: Deployment, bootstrap: str
) -> str:
    """The marketplace on 127.0.0.1; its URL."""
    offer = {"model": config.model, "prompt_price_units": PRICE_UNITS, "completion_price_units": PRICE_UNITS}
    env = {
        "FAR_DATA_DIR": str(store.gateway),
        "FAR_HOST": "127.0.0.1",
        "FAR_PORT": str(config.port),
        "FAR_CHAIN_RPC_URL": rpc_url,
        "FAR_CHAIN_ID": str(contracts.chain_id),
        "FAR_TOKEN_ADDRESS": contracts.token,
        "FAR_ESCROW_ADDRESS": contracts.escrow,
        "FAR_CHAIN_START_BLOCK": str(contracts.block),
        "FAR_SETTLER_PRIVATE_KEY": SETTLER,
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
