"""The demo's data directory."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from discovery.protocol.errors import InvalidArgument
from far_mesh.demo.store import DemoStore


def test_keys_stay_the_same_from_run_to_run_and_are_for_their_owner_only(tmp_path: Path) -> None:
    with DemoStore(tmp_path) as store:
        first = store.secret("user"), store.secret("jwt"), store.wallet("user")
    with DemoStore(tmp_path) as store:
        assert (store.secret("user"), store.secret("jwt"), store.wallet("user")) == first
    assert len(set(first)) == 3
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_a_second_demo_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with DemoStore(tmp_path), pytest.raises(InvalidArgument, match="another demo runs"), DemoStore(tmp_path):
        pass
    with DemoStore(tmp_path):  # and the first has let go
        pass


def test_a_clean_end_keeps_chain_and_books(tmp_path: Path) -> None:
    with DemoStore(tmp_path) as store:
        store.chain.mkdir()
        (store.chain / "state.json").write_text("{}")
    with DemoStore(tmp_path) as store:
        assert (store.chain / "state.json").exists()


def test_after_a_crash_chain_and_books_begin_anew_and_keys_stay(tmp_path: Path) -> None:
    with DemoStore(tmp_path) as store:
        user = store.wallet("user")
        for folder in (store.chain, store.gateway):
            folder.mkdir()
            (folder / "something").write_text("half written")
    (tmp_path / "running").touch()  # what a killed demo leaves
    with DemoStore(tmp_path) as store:
        assert not store.chain.exists()
        assert not store.gateway.exists()
        assert store.wallet("user") == user


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="cannot be used"), DemoStore(tmp_path / "file" / "below"):
        pass
