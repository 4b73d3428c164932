"""How the owner of a machine talks to the node that runs on it: a socket beside the identity file, for him alone.

A request is one line of JSON, ``{"command": …, "arguments": {…}}``. Lines with an ``event`` may come back before the
last one, which holds ``ok`` (the answer) or ``error`` (its code, message and retry).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from discovery.protocol.errors import (
    FarError,
    InvalidArgument,
    InvalidIdentity,
    PeerUnavailable,
    ProtocolViolation,
    error_from_wire,
)

log = structlog.get_logger(__name__)

MAX_REQUEST_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 4 * 1024 * 1024
REQUEST_SECONDS = 10.0
MAX_CONVERSATIONS = 16
_LAST_ANSWER_SECONDS = 2.0
_LONGEST_ADDRESS = 103  # sun_path holds 104 bytes on macOS and 108 on Linux, the final zero included

Tell = Callable[..., None]
"""``tell(event, **facts)`` before the answer."""

Command = Callable[[Mapping[str, Any], Tell], Awaitable[Mapping[str, Any]]]


def control_path(identity: Path) -> Path:
    """Where the node with this identity file listens."""
    identity = identity.expanduser()
    return identity.with_name(identity.name + ".sock")


class ControlServer:
    """Answers the owner's commands until :meth:`close`."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path, self._commands = path, commands
        self._conversations: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    @classmethod
    async def start(cls, path: Path, commands: Mapping[str, Command]) -> ControlServer:
        """Listen at ``path``, which only the owner of this process may open. What a dead node left is replaced.

        Raises:
            InvalidIdentity: a node listens there already, or something else is in the way.
        """
        server = cls(path, commands)
        server._server = await asyncio.start_unix_server(server._accept, sock=_bind(path), limit=MAX_REQUEST_BYTES)
        return server

    async def close(self) -> None:
        """Let answers that are nearly there go out, and be gone."""
        self._server.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        if self._conversations:
            await asyncio.wait(self._conversations, timeout=_LAST_ANSWER_SECONDS)
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None
        self._conversations.add(conversation)
        try:
            await self._answer(reader, writer)
        except OSError:  # whoever asked does not wait for the answer
            pass
        finally:
            self._conversations.discard(conversation)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: Mapping[str, Any]) -> None:
            if not writer.is_closing():  # the work goes on, whether or not somebody watches it
                writer.write(json.dumps(line).encode() + b"\n")

        def tell(event: str, **facts: Any) -> None:
            say({"event": event, **facts})

        try:
            if len(self._conversations) > MAX_CONVERSATIONS:
                raise InvalidArgument(f"{MAX_CONVERSATIONS} commands are in progress; wait for one of them")
            name, arguments = await _request(reader)
            command = self._commands.get(name)
            if command is None:
                raise InvalidArgument(f"there is no command {name[:40]!r}; there are {', '.join(self._commands)}")
            answer = await command(arguments, tell)
        except FarError as error:
            say({"error": {"code": error.code, "message": error.message, "retry_after": error.retry_after}})
        except Exception as error:  # a bug ends this command, not the node
            log.error("command_failed", kind=type(error).__name__, exc_info=True)
            say({"error": {"code": FarError.code, "message": f"the node has a bug: {type(error).__name__}"}})
        else:
            say({"ok": answer})
        await writer.drain()


def ask(
    path: Path,
    command: str,
    arguments: Mapping[str, Any] = {},
    *,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    timeout: float | None = None,
    until_closed: bool = False,
) -> dict[str, Any]:
    """Ask the node that listens at ``path``.

    Args:
        on_event: gets what the node tells before its answer.
        timeout: seconds to wait for each line; None: as long as it takes.
        until_closed: return only when the node has hung up after its answer.

    Raises:
        PeerUnavailable: no node listens there, or it ended before it answered.
        FarError: what the node answered.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection, _address(path) as address:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.sendall(json.dumps({"command": command, "arguments": dict(arguments)}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = _read_answer(lines, on_event)
                if until_closed:
                    lines.read(1)
                return answer
    except (FileNotFoundError, ConnectionRefusedError):
        identity = path.with_name(path.name.removesuffix(".sock"))
        raise PeerUnavailable(
            f"no node runs here with the identity {identity}: start it with far-node start, or name another one with "
            "--name or --identity"
        ) from None
    except TimeoutError:
        raise PeerUnavailable(f"the node did not answer in {timeout:.0f} s") from None
    except OSError as error:
        raise PeerUnavailable(f"the node cannot be asked at {path}: {error.strerror or error}") from None


def _read_answer(lines: Any, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    while line := lines.readline(MAX_ANSWER_BYTES):
        try:
            said = json.loads(line)
        except ValueError:
            raise ProtocolViolation("the node's answer is not JSON; is it of another version?") from None
        if "error" in said:
            error = said["error"]
            raise error_from_wire(str(error.get("code")), str(error.get("message")), error.get("retry_after"))
        if "ok" in said:
            answer: dict[str, Any] = said["ok"]
            return answer
        on_event(said)
    raise PeerUnavailable("the node ended before it answered")


async def _request(reader: asyncio.StreamReader) -> tuple[str, Mapping[str, Any]]:
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            line = await reader.readline()
    except TimeoutError:
        raise InvalidArgument(f"no request came in {REQUEST_SECONDS:.0f} s") from None
    except ValueError:
        raise InvalidArgument(f"a request has at most {MAX_REQUEST_BYTES} bytes") from None
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidArgument("a request is one line of JSON") from None
    if not isinstance(request, dict) or request.keys() - {"command", "arguments"}:
        raise InvalidArgument("a request has a command and its arguments, and nothing else")
    name, arguments = request.get("command"), request.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise InvalidArgument("a request has the name of a command, and arguments by name")
    return name, arguments


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _address(path) as address:
            _remove_what_a_dead_node_left(path, address)
            former = os.umask(0o177)  # from its first moment on nobody else may open it
            try:
                listener.bind(address)
            finally:
                os.umask(former)
    except OSError as error:
        listener.close()
        raise InvalidIdentity(f"the control socket {path} cannot be made: {error.strerror or error}") from None
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_what_a_dead_node_left(path: Path, address: str) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InvalidIdentity(f"{path} is in the way of the node's control socket; move it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise InvalidIdentity(f"another process on this machine runs with the identity of {path}")


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A path that fits in a socket's address; a long one is named by way of its open directory."""
    text = str(path)
    if len(os.fsencode(text)) <= _LONGEST_ADDRESS:
        yield text
        return
    if sys.platform != "linux":
        raise OSError(0, f"{text} is too long for a socket's address; use an --identity with a shorter path")
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
