"""From the rows of a claim to what is handed out: compared with what was accepted, grouped by
message, with the message's row and its content. What does not fit is held (F9)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apsw

from everpost.ids import Id
from everpost.store.checksums import row_crc
from everpost.store.interface import CLAIMED_BYTES, Claim
from everpost.store.queries import Rows
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.lenient import show_rows
from everpost.store.sqlite.quarantine import NumberOff, hold
from everpost.store.sqlite.work import Transaction, fetch_rows
from everpost.store.taken import Taken, as_claim, as_taken

__all__ = ["with_messages"]

_MESSAGES = Rows(SQL["claimed_messages"])
_BODY_HASHES = Rows(SQL["body_hashes"])
_REVISION = SQL["revision"]

_ADDRESS, _DESTINATION, _CRC = 4, 5, 11
"""Columns of `rows_of_lanes`; from 7 to 10 it has numbers."""


def with_messages(
    tx: Transaction, rows: Sequence[tuple[Any, ...]], deadline: int
) -> Sequence[Taken]:
    """The claims grouped by message, with what they share."""
    claims: dict[tuple[int, Id], list[Claim]] = {}
    tried: dict[Id, None] = {}
    changed: list[tuple[Id, int]] = []
    for row in rows:
        if not _fits(row):
            changed.append(row[:2])
            continue
        claim = as_claim(row[:_CRC], term=row[3] + 1, deadline=deadline)
        claims.setdefault((row[2], claim.message), []).append(claim)
        if claim.attempts:
            tried[claim.message] = None
    found = _messages(tx.db, list(claims))
    hashes = _body_hashes(tx.db, tried)
    hold(tx, changed, alarm="row_corrupt", why="recipient checksum")
    revision: Any = tx.db.execute(_REVISION).fetchall()[0][0]
    taken: list[Taken] = []
    lost: dict[str, list[tuple[Id, int]]] = {}
    for key, of_message in claims.items():
        of = found.get(key)
        one = (
            None
            if of is None
            else as_taken(of, tuple(of_message), hashes.get(key[1], {}), revision)
        )
        if one is not None:
            taken.append(one)
        else:
            why = "message unreadable" if key in found else "message missing"
            lost.setdefault(why, []).extend((claim.message, claim.n) for claim in of_message)
    for why, keys in lost.items():
        hold(tx, keys, alarm="content_corrupt", why=why)
    return taken


def _fits(row: Sequence[Any]) -> bool:
    """Whether a row of `rows_of_lanes` is what was accepted; rows of before 0003 do not say of
    their text. Raises NumberOff: one bit makes a stored 0 a NULL."""
    if not type(row[7]) is type(row[8]) is type(row[9]) is type(row[10]) is int:
        raise NumberOff("a number of a queued recipient is none")
    crc, address, destination = row[_CRC], row[_ADDRESS], row[_DESTINATION]
    if not (isinstance(address, str) and isinstance(destination, str)):
        return False
    return crc is None or crc == row_crc(row[0], row[1], address.encode(), destination.encode())


def _messages(
    db: apsw.Connection, keys: Sequence[tuple[int, Id]]
) -> Mapping[tuple[int, Id], Sequence[Any] | None]:
    """By (project, id) the row of `claimed_messages`; None for one that cannot be read."""
    try:
        rows = fetch_rows(db, _MESSAGES, [v for key in keys for v in key], before=(CLAIMED_BYTES,))
        return {(row[1], row[0]): row for row in rows}
    except UnicodeDecodeError:  # one of them
        if len(keys) == 1:
            return {keys[0]: None}
    found: dict[tuple[int, Id], Sequence[Any] | None] = {}
    for key in keys:
        found |= _messages(db, [key])
    return found


def _body_hashes(db: apsw.Connection, messages: Iterable[Id]) -> Mapping[Id, Mapping[str, bytes]]:
    """By message and form, the body hash of the earliest attempt in that form."""
    found: dict[Id, dict[str, bytes]] = {}
    for message, form, body_hash in show_rows(db, _BODY_HASHES, list(messages)):
        found.setdefault(message, {}).setdefault(form, body_hash)
    return found
