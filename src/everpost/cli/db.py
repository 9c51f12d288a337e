"""`everpost db`: the store's file on this machine."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from everpost.assembly.places import Places
from everpost.cli.client import json_option
from everpost.cli.exits import FAILED, Failed
from everpost.cli.root import Group
from everpost.cli.setup import node_options, settings_of
from everpost.cli.show import Printer, bytes_text
from everpost.config import Settings

__all__ = ["command"]


@click.group(cls=Group, name="db")
def command() -> None:
    """The store's file."""


@command.command("path")
@node_options
def path(config: Path | None, data: Path | None) -> None:
    """Print where the store's file lies."""
    click.echo(str(_store(settings_of(config, os.environ, {"node.data": data}))))


@command.command("migrate")
@node_options
@json_option
def migrate(config: Path | None, data: Path | None, as_json: bool) -> None:
    """Bring the store's schema up to date, as a start does. A server may be running: the schema
    only grows."""
    settings = settings_of(config, os.environ, {"node.data": data})
    if not _store(settings).is_file():
        raise Failed(f"there is no store at {_store(settings)}; `everpost serve` makes it")
    from everpost.store.interface import StoreError

    try:
        asyncio.run(_open_once(settings))
    except StoreError as error:
        raise Failed(str(error)) from error
    out = Printer(as_json=as_json)
    if as_json:
        out.json(_facts(_store(settings)))
    out.line(f"The schema of {_store(settings)} is up to date.")


async def _open_once(settings: Settings) -> None:
    from everpost.clock import SystemClock
    from everpost.store.sqlite import SqliteStore

    store = SqliteStore(_store(settings), clock=SystemClock(), durability=settings.store.durability)
    await store.open()
    await store.close()


@command.command("info")
@node_options
@click.option("--check", is_flag=True, help="Read every page and check it; slow on a large file.")
@json_option
def info(config: Path | None, data: Path | None, check: bool, as_json: bool) -> None:
    """Show the store's file: sizes, schema, engine. Nothing in it is changed."""
    store = _store(settings_of(config, os.environ, {"node.data": data}))
    if not store.is_file():
        raise Failed(f"there is no store at {store}; `everpost serve` makes it")
    facts = _facts(store, check=check)
    out = Printer(as_json=as_json)
    if as_json:
        out.json(facts)
    else:
        sizes = {name: bytes_text(facts[name]) for name in ("size", "wal_size")}
        out.fields({**facts, **sizes})
    if check and facts["check"] != "ok":
        click.get_current_context().exit(FAILED)


def _store(settings: Settings) -> Path:
    return Places(settings.node.data).store


def _facts(store: Path, *, check: bool = False) -> dict[str, Any]:
    """What the file says of itself, read only. Raises Failed."""
    import apsw

    wal = store.with_name(store.name + "-wal")
    try:
        connection = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5000)

            def ask(statement: str) -> Any:
                return connection.execute(statement).get

            facts = {
                "path": str(store),
                "size": store.stat().st_size,
                "wal_size": wal.stat().st_size if wal.exists() else 0,
                "schema": ask("SELECT version_num FROM alembic_version"),
                "journal_mode": ask("PRAGMA journal_mode"),
                "page_size": ask("PRAGMA page_size"),
                "free_pages": ask("PRAGMA freelist_count"),
                "sqlite": apsw.sqlite_lib_version(),
            }
            if check:
                facts["check"] = ask("PRAGMA integrity_check(1)")
        finally:
            connection.close()
    except apsw.Error as error:
        raise Failed(f"{store} cannot be read: {error}") from error
    return facts
