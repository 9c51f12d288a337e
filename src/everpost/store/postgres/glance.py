"""A look at the database from outside, for `everpost doctor` and `everpost db`."""

from collections.abc import Callable

import msgspec
import psycopg

from everpost.store.interface import StoreError
from everpost.store.postgres.connection import SQL, Address, as_store_error
from everpost.store.postgres.durability import Facts, judge
from everpost.store.postgres.work import fetch_all

__all__ = ["Glance", "glance"]

_SERVER = SQL["glance_server"]
_SCHEMA = SQL["glance_schema"]
_NODES = SQL["glance_nodes"]
_RELAYS = SQL["glance_relays"]
_STANDING = SQL["standing"]


class Glance(msgspec.Struct, frozen=True):
    """What was seen. `number` is the version as PostgreSQL counts it (150007); `schema` "" where
    there is no store yet; `standbys` None: this user may not see them; `skew_ms`: this machine's
    wall clock less the database's. `nodes`: (name, peers' address); `relays`: (host, port, settings
    as JSON)."""

    version: str
    number: int
    database: str
    size: int
    schema: str
    writable: bool
    problems: tuple[str, ...]
    assurance: str
    timeline: int
    standbys: int | None
    skew_ms: int
    nodes: tuple[tuple[str, str], ...] = ()
    relays: tuple[tuple[str, int, str], ...] = ()


def glance(address: Address, *, standbys: int, wall_ms: Callable[[], int]) -> Glance:
    """`wall_ms` is this machine's wall clock. Raises StoreError when the database cannot be
    reached, or does not let us in."""
    try:
        with address.connect() as db:
            version, number, database, size, ours = fetch_all(db, _SERVER)[0]
            before = wall_ms()
            said, *facts, connected = fetch_all(db, _STANDING)[0]
            wall = (before + wall_ms()) // 2
            hidden = connected is None or connected < 0
            found = Facts(*facts)._replace(standbys=None if hidden else connected)
            judged = judge(found, standbys=standbys, relaxed=False)
            return Glance(
                version=version,
                number=number,
                database=database,
                size=size,
                schema=str(fetch_all(db, _SCHEMA)[0][0]) if ours else "",
                writable=judged.writable,
                problems=judged.problems,
                assurance=judged.assurance.value,
                timeline=found.timeline,
                standbys=found.standbys,
                skew_ms=wall - said,
                nodes=tuple((row[0], row[1]) for row in fetch_all(db, _NODES)) if ours else (),
                relays=tuple((r[0], r[1], r[2]) for r in fetch_all(db, _RELAYS)) if ours else (),
            )
    except psycopg.Error as error:
        told = as_store_error(error)
        raise told if isinstance(told, StoreError) else StoreError(str(error)) from error
