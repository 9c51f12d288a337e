"""From the rows of a claim to what is handed out: compared with what was accepted, grouped by
message, with the message's row and its content. What does not fit is held (F9)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from everpost import telemetry
from everpost.ids import Id
from everpost.model.states import HeldReason, State
from everpost.store.checksums import row_crc
from everpost.store.interface import CLAIMED_BYTES, Claim
from everpost.store.postgres.connection import SQL
from everpost.store.postgres.moves import Moves, json_text, rows_by_key
from everpost.store.postgres.work import Rows, Transaction, fetch_all, fetch_rows
from everpost.store.taken import Taken, as_claim, as_taken

__all__ = ["hold", "with_messages"]

_MESSAGES = Rows(SQL["claimed_messages"])
_BODY_HASHES = Rows(SQL["body_hashes"])
_CONTENT_OF = SQL["content"]

_ADDRESS, _DESTINATION, _CRC = 4, 5, 11
"""Columns of `claim_rows`."""

_CONTENT, _KEY_ID, _DIGEST, _SEALED = 8, 9, 10, 11
"""Columns of `claimed_messages`."""


def hold(tx: Transaction, keys: Iterable[tuple[Id, int]], *, alarm: str, why: str) -> None:
    """Hold these (message, n): damaged recipients can't be sent, nor given to anyone."""
    wanted = set(keys)
    if not wanted:
        return
    rows = [row for key, row in rows_by_key(tx, wanted).items() if key in wanted]
    telemetry.alarm(alarm).raise_(message=next(iter(wanted))[0], error=why)
    moves = Moves(tx)
    for row in rows:
        moves.move(row, State.HELD, reason=HeldReason.DAMAGED)
        moves.event(row.message, row.n, "held", json_text({"reason": why}))
    moves.write()


def with_messages(
    tx: Transaction, rows: Sequence[tuple[Any, ...]], deadline: int
) -> Sequence[Taken]:
    """The claims grouped by message, with what they share."""
    claims: dict[tuple[int, Id], list[Claim]] = {}
    tried: dict[Id, None] = {}
    changed: list[tuple[Id, int]] = []
    for row in rows:
        if not _fits(row):
            changed.append((row[0], row[1]))
            continue
        claim = as_claim(row[:_CRC], term=row[3], deadline=deadline)
        claims.setdefault((row[2], claim.message), []).append(claim)
        if claim.attempts:
            tried[claim.message] = None
    found = _messages(tx, list(claims))
    hashes = _body_hashes(tx, tried)
    hold(tx, changed, alarm="row_corrupt", why="recipient checksum")
    taken: list[Taken] = []
    lost: dict[str, list[tuple[Id, int]]] = {}
    for key, of_message in claims.items():
        of = found.get(key)
        bodies = hashes.get(key[1], {})
        one = None if of is None else as_taken(of[:-1], tuple(of_message), bodies, of[-1])
        if one is not None:
            taken.append(one)
        else:
            why = "message unreadable" if key in found else "message missing"
            lost.setdefault(why, []).extend((claim.message, claim.n) for claim in of_message)
    for why, keys in lost.items():
        hold(tx, keys, alarm="content_corrupt", why=why)
    return taken


def _fits(row: Sequence[Any]) -> bool:
    """Whether a row of `claim_rows` is what was accepted."""
    crc, address, destination = row[_CRC], row[_ADDRESS], row[_DESTINATION]
    return crc is None or bool(
        crc == row_crc(row[0], row[1], address.encode(), destination.encode())
    )


def _messages(
    tx: Transaction, keys: Sequence[tuple[int, Id]]
) -> Mapping[tuple[int, Id], Sequence[Any]]:
    """By (project, id) the row of `claimed_messages`."""
    values = [value for project, id_ in keys for value in (project, id_, id_)]
    rows = fetch_rows(tx.db, _MESSAGES, values, before=(CLAIMED_BYTES,))
    return {(row[1], row[0]): _with_content(tx, row) for row in rows}


def _with_content(tx: Transaction, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A content has the id of the message that it was accepted with; that may be another one."""
    if row[_DIGEST] is not None or row[_CONTENT] == row[0]:
        return row
    found = fetch_all(tx.db, _CONTENT_OF, (row[_CONTENT],))
    if not found:
        return row
    key_id, sealed, digest = found[0]
    come_along = sealed if len(sealed) <= CLAIMED_BYTES else None
    return (*row[:_KEY_ID], key_id, digest, come_along, *row[_SEALED + 1 :])


def _body_hashes(tx: Transaction, messages: Iterable[Id]) -> Mapping[Id, Mapping[str, bytes]]:
    """By message and form, the body hash of the earliest attempt in that form."""
    found: dict[Id, dict[str, bytes]] = {}
    for message, form, body_hash in fetch_rows(tx.db, _BODY_HASHES, list(messages)):
        found.setdefault(message, {}).setdefault(form, body_hash)
    return found
