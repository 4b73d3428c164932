"""The owner's line to his node: for him alone, bounded, and never in the way of serving."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from discovery.protocol.errors import FarError, InvalidArgument, InvalidIdentity, PeerUnavailable
from far_node.control import MAX_CONVERSATIONS, MAX_REQUEST_BYTES, ControlServer, Tell, ask, control_path


async def echo(arguments: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
    return {"said": dict(arguments)}


async def count(arguments: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
    for number in range(int(arguments["to"])):
        tell("counted", number=number)
    return {"counted": arguments["to"]}


async def refuse(arguments: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
    raise PeerUnavailable("not now", retry_after=2.5)


async def break_down(arguments: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
    raise ZeroDivisionError


COMMANDS = {"echo": echo, "count": count, "refuse": refuse, "break": break_down}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return control_path(tmp_path / "identity")


@pytest.fixture
async def server(path: Path) -> AsyncIterator[ControlServer]:
    started = await ControlServer.start(path, COMMANDS)
    yield started
    await started.close()


async def asked(path: Path, command: str, **arguments: Any) -> dict[str, Any]:
    return await asyncio.to_thread(ask, path, command, arguments, timeout=20)


async def raw(path: Path, request: bytes) -> dict[str, Any]:
    """What comes back for these bytes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    async with asyncio.timeout(20):
        line = await reader.readline()
    writer.close()
    answer: dict[str, Any] = json.loads(line)
    return answer


async def test_a_question_is_answered(server: ControlServer, path: Path) -> None:
    assert await asked(path, "echo", model="far-demo", blocks=[0, 4]) == {
        "said": {"model": "far-demo", "blocks": [0, 4]}
    }


async def test_what_happens_on_the_way_is_told(server: ControlServer, path: Path) -> None:
    events: list[dict[str, Any]] = []
    answer = await asyncio.to_thread(ask, path, "count", {"to": 3}, on_event=events.append, timeout=20)
    assert answer == {"counted": 3}
    assert events == [{"event": "counted", "number": number} for number in range(3)]


async def test_an_error_keeps_its_kind(server: ControlServer, path: Path) -> None:
    with pytest.raises(PeerUnavailable, match="not now") as refusal:
        await asked(path, "refuse")
    assert refusal.value.retry_after == 2.5


async def test_a_bug_ends_the_command_and_not_the_node(server: ControlServer, path: Path) -> None:
    with pytest.raises(FarError, match="a bug: ZeroDivisionError"):
        await asked(path, "break")
    assert await asked(path, "echo") == {"said": {}}


async def test_only_the_owner_may_open_it(server: ControlServer, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("request_line", "words"),
    [
        (b"\n", "one line of JSON"),
        (b"status\n", "one line of JSON"),
        (b"\xff\xfe\n", "one line of JSON"),
        (b"[" * 50_000 + b"\n", "one line of JSON"),
        (b"[]\n", "a command and its arguments"),
        (b'{"command": "echo", "more": 1}\n', "and nothing else"),
        (b'{"command": 3}\n', "the name of a command"),
        (b'{"command": "echo", "arguments": []}\n', "arguments by name"),
        (b"{}\n", "the name of a command"),
        (b'{"command": "format"}\n', "there is no command 'format'; there are echo, count"),
        (b'{"command": "' + b"x" * 2 * MAX_REQUEST_BYTES + b'"}\n', f"at most {MAX_REQUEST_BYTES} bytes"),
    ],
    ids=lambda value: value[:20].decode(errors="replace") if isinstance(value, bytes) else None,
)
async def test_what_is_no_request_is_told_so(
    server: ControlServer, path: Path, request_line: bytes, words: str
) -> None:
    answer = await raw(path, request_line)
    assert answer["error"]["code"] == InvalidArgument.code
    assert words in answer["error"]["message"]
    assert await asked(path, "echo") == {"said": {}}


async def test_one_who_asks_and_leaves_harms_nobody(server: ControlServer, path: Path) -> None:
    for request in (b"", b'{"command":', b'{"command": "count", "arguments": {"to": 2000}}\n'):
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(request)
        writer.close()
    assert await asked(path, "echo") == {"said": {}}


async def test_there_is_an_end_to_how_many_may_ask_at_once(server: ControlServer, path: Path) -> None:
    silent = [await asyncio.open_unix_connection(path) for _ in range(MAX_CONVERSATIONS)]
    answer = await raw(path, b'{"command": "echo"}\n')
    assert "commands are in progress" in answer["error"]["message"]
    for _, writer in silent:
        writer.close()
        await writer.wait_closed()
    assert await asked(path, "echo") == {"said": {}}


async def test_a_node_that_does_not_run_is_said_to_be_the_reason(path: Path) -> None:
    with pytest.raises(PeerUnavailable, match=f"no node runs here with the identity {path.parent}/identity"):
        await asked(path, "status")


async def test_what_a_killed_node_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(PeerUnavailable, match="no node runs here"):
        await asked(path, "status")
    server = await ControlServer.start(path, COMMANDS)
    assert await asked(path, "echo") == {"said": {}}
    await server.close()


async def test_a_second_node_does_not_take_the_place_of_a_running_one(server: ControlServer, path: Path) -> None:
    with pytest.raises(InvalidIdentity, match="another process on this machine runs with the identity"):
        await ControlServer.start(path, COMMANDS)
    assert await asked(path, "echo") == {"said": {}}


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
async def test_what_is_no_socket_is_not_removed(path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("/dev/null")
    with pytest.raises(InvalidIdentity, match="is in the way"):
        await ControlServer.start(path, COMMANDS)
    assert os.path.lexists(path)


async def test_a_node_that_ends_leaves_no_socket_and_still_answers_what_was_asked(path: Path) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def wait(arguments: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
        began.set()
        await go_on.wait()
        return {"waited": True}

    server = await ControlServer.start(path, {"wait": wait})
    answer = asyncio.create_task(asked(path, "wait"))
    await began.wait()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    await server.close()
    assert await answer == {"waited": True}
    assert not path.exists()


async def test_a_path_that_is_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    path = control_path(deep / "identity")
    server = await ControlServer.start(path, COMMANDS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await asked(path, "echo") == {"said": {}}
    await server.close()
    assert not path.exists()
