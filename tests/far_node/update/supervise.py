"""A supervisor in a process of its own, as ``far-node start --auto-update`` is one: ``HOME INDEX``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from far_node.update.environments import Environments
from far_node.update.install import own_environment
from far_node.update.options import UpdateOptions
from far_node.update.process import NodeProcess
from far_node.update.start import become
from far_node.update.supervisor import Supervisor, Times, Updated


def tell(event: str, sentence: str, **facts: Any) -> None:
    """To whoever reads."""
    print(json.dumps({"event": event, **facts}), flush=True)


async def supervise(home: Path, index: str) -> Updated:
    """Until the node ends, or a newer version serves."""
    environments = Environments(home / "far")
    running = environments.current()
    assert running is not None
    supervisor = Supervisor(
        environments,
        running,
        UpdateOptions(index=index),
        "",
        home / "identity.sock",
        lambda to: NodeProcess.start([str(to.program), "start"], own_environment()),
        tell,
        Times(look=0.05, poll=0.05, settle=0.2),
    )
    result = await supervisor.run()
    if isinstance(result, Updated):
        return result
    sys.exit(result.code)


if __name__ == "__main__":
    become(asyncio.run(supervise(Path(sys.argv[1]), sys.argv[2])), [])
