"""The port of gRPC: who may connect how, and how much."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from discovery.web.address import is_loopback
from far_mesh.marketplace.app import Rooms
from far_mesh.marketplace.errors import AddressInUse, InvalidSetting, MissingSetting
from far_mesh.marketplace.grpc_api.health import Health
from far_mesh.marketplace.grpc_api.service import SERVICE, FarMesh
from far_mesh.marketplace.settings import Settings

GRACE_SECONDS = 10.0
MAX_CALLS = 10_000
MAX_CALLS_PER_CONNECTION = 100
LIMITS = {
    # A connection that does not answer to a ping is gone, and with it whoever reads.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    # Clients may ping as often as every 20 s while they wait; who does it much more often is cut off.
    "grpc.http2.min_ping_interval_without_data_ms": 20_000,
    "grpc.http2.max_ping_strikes": 3,
    "grpc.max_connection_idle_ms": 300_000,
    # Who reads nothing for ever, and answers to pings, would otherwise never be rid of.
    "grpc.max_connection_age_ms": 3_600_000,
    "grpc.max_connection_age_grace_ms": 1_800_000,
    "grpc.max_concurrent_streams": MAX_CALLS_PER_CONNECTION,
    # Two processes on one port would share the calls in silence.
    "grpc.so_reuseport": 0,
}


def credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """The certificate and its key, or None: in clear text, which only this machine reads, or the operator wants.

    Raises:
        MissingSetting: half of them, or none on an address that others reach.
        InvalidSetting: a file cannot be read, or the two are no certificate and its key.
    """
    if settings.grpc_tls_cert is None and settings.grpc_tls_key is None:
        if not settings.grpc_insecure and not is_loopback(settings.host):
            raise MissingSetting(
                f"FAR_GRPC_TLS_CERT is not set, and {settings.host} is reached by others: tokens and prompts would "
                "travel in clear text. Set it and FAR_GRPC_TLS_KEY, or FAR_GRPC_INSECURE=true behind a proxy with TLS",
                setting="FAR_GRPC_TLS_CERT",
            )
        return None
    settings.require("grpc_tls_cert", "grpc_tls_key")
    assert settings.grpc_tls_cert is not None
    assert settings.grpc_tls_key is not None
    certificate = _content(settings.grpc_tls_cert, "FAR_GRPC_TLS_CERT")
    key = _content(settings.grpc_tls_key, "FAR_GRPC_TLS_KEY")
    try:
        # The library would only say that it cannot listen. A key behind a password is none: nobody is there to type it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.grpc_tls_cert, settings.grpc_tls_key, "")
    except ssl.SSLError:
        raise InvalidSetting(
            "the settings FAR_GRPC_TLS_CERT and FAR_GRPC_TLS_KEY are not usable: they must be a certificate and its "
            "private key, both PEM, the key without a password",
            setting="FAR_GRPC_TLS_CERT",
        ) from None
    return grpc.ssl_server_credentials([(key, certificate)])


@asynccontextmanager
async def open_door(settings: Settings, rooms: Rooms, port: int) -> AsyncIterator[int]:
    """Answer calls on ``port`` (0: any that is free) of the settings' host; gives the port. At the end calls under way
    have some seconds to finish.

    Raises:
        MissingSetting, InvalidSetting: how to be reached is not safe, or means nothing.
        AddressInUse: another process has the port.
    """
    options = [*LIMITS.items(), ("grpc.max_receive_message_length", settings.max_body_bytes)]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_CALLS)
    services = FarMesh(
        rooms.auth, rooms.inference, rooms.health, rooms.limits, settings.trusted_proxies, rooms.telemetry
    )
    server.add_generic_rpc_handlers((services.handler(),))

    async def is_ready() -> bool:
        return not (await rooms.health.readiness()).reasons

    state = Health(is_ready, [SERVICE])
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    bound = _bind(server, settings, port)
    await server.start()
    try:
        yield bound
    finally:
        state.close()
        await server.stop(GRACE_SECONDS)


def _bind(server: grpc.aio.Server, settings: Settings, port: int) -> int:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    secure = credentials(settings)
    try:
        if secure is None:
            return server.add_insecure_port(f"{host}:{port}")
        return server.add_secure_port(f"{host}:{port}", secure)
    except RuntimeError:
        raise AddressInUse(
            f"cannot listen on {host}:{port} for gRPC. Is something running there? Choose another FAR_GRPC_PORT",
            port=port,
        ) from None


def _content(path: Path, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSetting(
            f"the setting {variable} is not usable: {path}: {error.strerror}", setting=variable
        ) from None
