"""The prober beside the service."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from discovery.service import companion
from discovery.service.companion import command_of, identity_of, kept_running
from discovery.web.errors import InvalidSetting
from tests.discovery.service.doubles import settings_in


def test_it_is_a_command_that_there_is(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, initial_peers=("/ip4/1.2.3.4/tcp/1/p2p/x",), probe_models=("one", "two"))
    command = command_of(settings, "http://127.0.0.1:8001")
    assert command[:4] == [sys.executable, "-m", companion.PROGRAM, "probe"]
    program = typer.main.get_command(import_module(companion.PROGRAM).app)
    parsed = program.commands["probe"].make_context("probe", command[4:])  # type: ignore[attr-defined]
    assert parsed.params["weights"] == ["one", "two"]
    assert parsed.params["report_to"] == ["http://127.0.0.1:8001"]
    assert (parsed.params["identity"], parsed.params["prefix"]) == (identity_of(settings), "far")


def test_without_the_client_it_is_said_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companion, "PROGRAM", "no_such_program.cli")
    with pytest.raises(InvalidSetting, match="pip install"):
        command_of(settings_in(tmp_path), "http://127.0.0.1:8001")


async def test_it_is_started_again_when_it_ends_and_ended_with_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "FIRST_PAUSE", 0.01)
    starts, ended = tmp_path / "starts", tmp_path / "ended"
    program = f"""
import pathlib, signal, sys, time
starts = pathlib.Path({str(starts)!r})
with starts.open("a") as file:
    file.write("x")
if len(starts.read_text()) < 3:
    sys.exit(1)
def end(*_):
    pathlib.Path({str(ended)!r}).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
starts.with_name("lives").touch()
time.sleep(600)
"""
    async with kept_running([sys.executable, "-c", program]), asyncio.timeout(60):
        while not (tmp_path / "lives").exists():
            await asyncio.sleep(0.02)
    assert starts.read_text() == "xxx"
    assert ended.exists()
