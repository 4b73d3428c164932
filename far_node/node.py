"""A node from start to stop."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from discovery import __version__
from discovery.dht.identity import Identity, load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer, bare_maddr
from discovery.protocol.announcement import LIFETIME_SECONDS, MAX_MADDRS, Announcement, Dtype
from discovery.protocol.errors import InvalidArgument
from far_node.announcer import Announcer
from far_node.blocks.cut import ModelShape, read_config, shape_of
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.source import ModelSource, find_model
from far_node.config import NodeConfig
from far_node.executor import Executor
from far_node.handler import NodeHandler
from far_node.limits import Limits
from far_node.receipts import Signer
from far_node.serving import Serving


@dataclass
class Node:
    """A running node: its place in the swarm, its blocks and its door. From :meth:`start` to :meth:`stop`."""

    announcement: Announcement
    maddrs: tuple[str, ...]
    handler: NodeHandler
    _peer: SwarmPeer
    _executor: Executor
    _announcer: Announcer

    @classmethod
    async def start(cls, config: NodeConfig) -> Node:
        """Find the model, load our blocks, join the swarm, serve, announce.

        Raises:
            FarError: whatever stands in the way, with what to do about it.
        """
        identity = load_identity(Path(config.identity))
        source, shape, blocks = await asyncio.to_thread(_load, config)
        peer = await SwarmPeer.start(identity, _peer_config(config))
        try:
            return await cls._serve(config, identity, peer, _Loaded(source, shape, blocks))
        except BaseException:
            await peer.close()
            raise

    @classmethod
    async def _serve(cls, config: NodeConfig, identity: Identity, peer: SwarmPeer, loaded: _Loaded) -> Node:
        maddrs = await peer.maddrs()
        announcement = _announcement(config, identity, loaded, maddrs)
        limits = Limits(max_sessions=config.max_sessions)
        executor = Executor(limits)
        serving = await Serving.prepare(
            announcement,
            loaded.blocks,
            Signer(identity.key, announcement),
            executor,
            cache_bytes=config.cache_bytes,
            context_length=loaded.shape.context_length,
            limits=limits,
        )
        handler = NodeHandler(peer.transport, executor, limits)
        handler.add(serving)
        await handler.start()
        announcer = Announcer(peer.board, announcement, identity.key)
        await announcer.start()
        return cls(announcement, maddrs, handler, peer, executor, announcer)

    async def stop(self) -> None:
        """Say goodbye on the DHT, close streams, end the daemon and the compute thread."""
        await self._announcer.stop()
        await self.handler.close()
        await self._peer.close()
        await asyncio.to_thread(self._executor.close)


@dataclass(frozen=True)
class _Loaded:
    source: ModelSource
    shape: ModelShape
    blocks: Blocks


def _load(config: NodeConfig) -> tuple[ModelSource, ModelShape, Blocks]:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    source = find_model(config.model, config.model_id)
    shape = shape_of(read_config(source))
    first, end = config.blocks or (0, shape.block_count)
    device = _device(config.device)
    blocks = load_blocks(
        source, first, end, dtype=_dtype(config, device), quantization=config.quantization, device=device
    )
    return source, shape, blocks


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidArgument(f"--gpu: no CUDA device is visible to torch ({wanted}); use --cpu-only")
    return wanted


def _dtype(config: NodeConfig, device: str) -> Dtype:
    return config.dtype or ("float32" if device == "cpu" else "bfloat16")


def _peer_config(config: NodeConfig) -> PeerConfig:
    return PeerConfig(
        initial_peers=config.initial_peers,
        host_maddrs=config.host_maddrs,
        announce_maddrs=config.public_maddrs,
        prefix=config.prefix,
        map_ports=config.map_ports,
    )


def _announcement(config: NodeConfig, identity: Identity, loaded: _Loaded, maddrs: tuple[str, ...]) -> Announcement:
    now = int(time.time())
    dtypes: dict[torch.dtype, Dtype] = {
        torch.float32: "float32",
        torch.bfloat16: "bfloat16",
        torch.float16: "float16",
    }
    return Announcement(
        peer_id=identity.peer_id,
        wallet=config.wallet,
        model_id=loaded.source.id,
        model_digest=loaded.source.digest,
        block_count=loaded.shape.block_count,
        first_block=loaded.blocks.first,
        end_block=loaded.blocks.end,
        quantization=config.quantization,
        dtype=dtypes[loaded.blocks.dtype],
        maddrs=tuple(bare_maddr(maddr) for maddr in maddrs[:MAX_MADDRS]),
        software=f"far-mesh/{__version__}",
        issued_at=now,
        expires_at=now + LIFETIME_SECONDS,
    )
