"""`everpost db`: the store itself, the embedded one's file or the database that nodes share."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from everpost.assembly.naming import many_nodes
from everpost.assembly.places import Places
from everpost.cli.client import json_option
from everpost.cli.exits import FAILED, Failed, Wrong
from everpost.cli.root import Group
from everpost.cli.setup import node_options, settings_of
from everpost.cli.show import Printer, bytes_text
from everpost.config import Settings

__all__ = ["command"]


@click.group(cls=Group, name="db")
def command() -> None:
    """The store itself: its file, or the database that nodes share."""


@command.command("path")
@node_options
def path(config: Path | None, data: Path | None) -> None:
    """Print where the store lies: its file, or the database without its password."""
    settings = settings_of(config, os.environ, {"node.data": data})
    click.echo(_place(settings) if many_nodes(settings) else str(_store(settings)))


@command.command("migrate")
@node_options
@json_option
def migrate(config: Path | None, data: Path | None, as_json: bool) -> None:
    """Bring the store's schema up to date, as a start does. A server may be running: the schema
    only grows."""
    settings = settings_of(config, os.environ, {"node.data": data})
    shared = many_nodes(settings)
    if not shared and not _store(settings).is_file():
        raise Failed(f"there is no store at {_store(settings)}; `everpost serve` makes it")
    from everpost.store.interface import StoreError

    try:
        asyncio.run(_open_once(settings))
    except StoreError as error:
        raise Failed(str(error)) from error
    out = Printer(as_json=as_json)
    if as_json:
        out.json(_shared_facts(settings) if shared else _facts(_store(settings)))
    where = _place(settings) if shared else _store(settings)
    out.line(f"The schema of {where} is up to date.")


async def _open_once(settings: Settings) -> None:
    from everpost.assembly.engine import open_engine
    from everpost.assembly.wall import boot_id

    engine = await open_engine(settings, Places(settings.node.data), boot=boot_id(), waits=False)
    await engine.store.close()


@command.command("info")
@node_options
@click.option("--check", is_flag=True, help="Read every page and check it; slow on a large file.")
@json_option
def info(config: Path | None, data: Path | None, check: bool, as_json: bool) -> None:
    """Show the store: sizes, schema, engine; of a database that nodes share, whether what it
    acknowledges is safe. Nothing in it is changed."""
    settings = settings_of(config, os.environ, {"node.data": data})
    if many_nodes(settings):
        _shared_info(settings, check=check, as_json=as_json)
        return
    store = _store(settings)
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


def _shared_info(settings: Settings, *, check: bool, as_json: bool) -> None:
    if check:
        raise Wrong("--check is for the embedded store; PostgreSQL has pg_amcheck")
    facts = _shared_facts(settings)
    out = Printer(as_json=as_json)
    if as_json:
        out.json(facts)
    else:
        problems = "; ".join(facts["problems"]) or None
        out.fields({**facts, "size": bytes_text(facts["size"]), "problems": problems})


def _shared_facts(settings: Settings) -> dict[str, Any]:
    """What the database says of itself. Raises Failed."""
    from everpost.assembly.engine import address_of
    from everpost.clock import SystemClock
    from everpost.store.interface import StoreError
    from everpost.store.postgres.glance import glance

    try:
        seen = glance(
            address_of(settings.postgres),
            standbys=settings.postgres.standbys,
            wall_ms=SystemClock().now,
        )
    except StoreError as error:
        raise Failed(str(error)) from error
    return {
        "database": _place(settings),
        "size": seen.size,
        "schema": seen.schema or None,
        "postgresql": seen.version,
        "writable": seen.writable,
        "durable": not seen.problems,
        "answers": seen.assurance,
        "problems": list(seen.problems),
        "timeline": seen.timeline,
        "standbys": seen.standbys,
        "clock_skew_seconds": seen.skew_ms / 1000,
    }


def _place(settings: Settings) -> str:
    """The database as libpq names it, without what is secret. Raises Failed."""
    from everpost.assembly.engine import address_of
    from everpost.store.interface import StoreError

    try:
        return str(address_of(settings.postgres))
    except StoreError as error:
        raise Failed(str(error)) from error


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
