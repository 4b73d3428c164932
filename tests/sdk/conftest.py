"""A marketplace to ask."""

from tests.far_mesh.marketplace.conftest import empty_sqlite, live_chain, loop_thread, open_house, sqlite_url

__all__ = ["empty_sqlite", "live_chain", "loop_thread", "open_house", "sqlite_url"]
