"""claim, extend, resign: recipients in the hands of one process, for a term."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import apsw

from everpost import telemetry
from everpost.ids import Id, made_at
from everpost.model.states import HeldReason, InDoubtPolicy, State, Verb
from everpost.store.interface import CLAIMED_BYTES, Claim, Claimed
from everpost.store.queries import Rows
from everpost.store.sqlite.accepting import checksum
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.moves import Moves, json_text, rows_by_key
from everpost.store.sqlite.work import Transaction, Work, fetch_rows, write_rows

__all__ = ["ClaimWork", "Taken", "Turns", "as_claim", "extend", "resign"]

_LANES = SQL["lanes"]
_LANE_ROWS = SQL["lane_rows"]
_ONE_OF_EACH_LANE = SQL["one_of_each_lane"]
_HAS_COME_DUE = SQL["has_come_due"]
_PROMOTE_DUE = SQL["promote_due"]
_SET_CLAIMED = Rows(SQL["set_claimed"])
_MESSAGES = Rows(SQL["claimed_messages"])
_BODY_HASHES = Rows(SQL["body_hashes"])
_EXTEND = Rows(SQL["extend_claims"])
_REVISION = SQL["revision"]

_PRIORITIES = (0, 1)
_LAST_ROUTE = "\U0010ffff"
_PROMOTED_PER_CLAIM = 500
_ROUNDS = 4
_ROUTE = 6
"""The column of `lane_rows`."""


class Turns:
    """Which route this process served last, by priority: the next claim begins after it."""

    __slots__ = ("after",)

    def __init__(self) -> None:
        self.after = dict.fromkeys(_PRIORITIES, "")


class Taken:
    """What one claim took of one message, its content still unchecked: `checksum` is the stored
    one; it and `claimed.sealed` are empty when the content is missing."""

    __slots__ = ("checksum", "claimed")

    def __init__(self, claimed: Claimed, checksum: bytes) -> None:
        self.claimed = claimed
        self.checksum = checksum

    def sound(self) -> bool:
        """Whether the content that came along is what was accepted."""
        sealed = self.claimed.sealed
        return sealed is None or checksum(sealed) == self.checksum


class ClaimWork(Work[Sequence[Taken]]):
    """One call of claim."""

    __slots__ = ("_busy", "_lease_ms", "_limit", "_now", "_owner", "_turns")
    verb: ClassVar[str] = Verb.CLAIM

    def __init__(
        self, owner: Id, *, limit: int, lease_ms: int, busy: Sequence[str], turns: Turns, now: int
    ) -> None:
        super().__init__()
        self._owner = owner
        self._limit = limit
        self._lease_ms = lease_ms
        self._busy = json_text(busy)
        self._turns = turns
        self._now = now

    def wanted(self, db: apsw.Connection) -> bool:
        """Whether anything is due; most looks of an idle process end here."""
        if db.execute(_HAS_COME_DUE, (self._now,)).fetchall():
            return True
        return any(self._lanes(db, p, "", _LAST_ROUTE, 1) for p in _PRIORITIES)

    def idle(self) -> Sequence[Taken]:
        return ()

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[ClaimWork]") -> list[Sequence[Taken]]:
        return [work._claim(tx) for work in works]

    def _claim(self, tx: Transaction) -> Sequence[Taken]:
        tx.db.execute(_PROMOTE_DUE, (tx.now, _PROMOTED_PER_CLAIM))
        rows: list[tuple[Any, ...]] = []
        for priority in _PRIORITIES:
            if len(rows) < self._limit:
                rows += self._from_lanes(tx, priority, self._limit - len(rows))
        if not rows:
            return ()
        deadline = tx.now + self._lease_ms
        keys = [value for row in rows for value in row[:2]]
        write_rows(tx.db, _SET_CLAIMED, keys, before=(self._owner, deadline))
        for row in rows:
            tx.tally(row[2], State.QUEUED, -1)
            tx.tally(row[2], State.CLAIMED, 1)
        return _with_messages(tx, rows, deadline)

    def _from_lanes(self, tx: Transaction, priority: int, room: int) -> list[tuple[Any, ...]]:
        """Up to `room` due rows of one priority: the lanes' turns, oldest first in each. Every
        round gives each lane that still has rows an equal share of what is left; the last one gives
        all of it to whoever comes first."""
        lanes = self._in_turn(tx.db, priority, room)
        taken: list[tuple[Any, ...]] = []
        had = 0  # by each of the lanes that still have rows
        for more_rounds in reversed(range(_ROUNDS)):
            left = room - len(taken)
            if not lanes or not left:
                break
            share = max(left // len(lanes), 1) if more_rounds else left
            if share == 1:
                rows = self._one_of_each(tx, priority, lanes, had, most=left)
                more = [str(row[_ROUTE]) for row in rows]
            else:
                rows, more = self._shares(tx, priority, lanes, had, share=share, most=left)
            taken += rows
            had += share
            self._turns.after[priority] = rows[-1][_ROUTE] if len(rows) == left else lanes[-1]
            lanes = more
        return taken

    @staticmethod
    def _one_of_each(
        tx: Transaction, priority: int, lanes: Sequence[str], had: int, *, most: int
    ) -> list[tuple[Any, ...]]:
        values = {
            "lanes": json_text(lanes), "priority": priority, "now": tx.now, "offset": had,
            "most": most,
        }  # fmt: skip
        return tx.db.execute(_ONE_OF_EACH_LANE, values).fetchall()

    @staticmethod
    def _shares(
        tx: Transaction, priority: int, lanes: Sequence[str], had: int, *, share: int, most: int
    ) -> tuple[list[tuple[Any, ...]], list[str]]:
        """`share` rows of each lane, `most` in all; and the lanes that may have more."""
        taken: list[tuple[Any, ...]] = []
        more: list[str] = []
        for lane in lanes:
            values = (priority, lane, tx.now, min(share, most - len(taken)), had)
            rows = tx.db.execute(_LANE_ROWS, values).fetchall()
            taken += rows
            if len(rows) == share:
                more.append(lane)
            if len(taken) == most:
                break
        return taken, more

    def _in_turn(self, db: apsw.Connection, priority: int, most: int) -> list[str]:
        last = self._turns.after[priority]
        lanes = self._lanes(db, priority, last, _LAST_ROUTE, most)
        if last and len(lanes) < most:
            lanes += self._lanes(db, priority, "", last, most - len(lanes))
        return lanes

    def _lanes(
        self, db: apsw.Connection, priority: int, after: str, upto: str, most: int
    ) -> list[str]:
        """Lanes with due rows, in order, that are not busy."""
        values = {
            "priority": priority, "after": after, "upto": upto, "busy": self._busy, "most": most
        }  # fmt: skip
        return [str(row[0]) for row in db.execute(_LANES, values)]


def _with_messages(
    tx: Transaction, rows: Sequence[tuple[Any, ...]], deadline: int
) -> Sequence[Taken]:
    """The claims grouped by message, with what they share."""
    claims: dict[tuple[int, Id], list[Claim]] = {}
    tried: dict[Id, None] = {}
    for row in rows:
        claim = as_claim(row, term=row[3] + 1, deadline=deadline)
        claims.setdefault((row[2], claim.message), []).append(claim)
        if claim.attempts:
            tried[claim.message] = None
    hashes = _body_hashes(tx.db, tried)
    values = [value for key in claims for value in key]
    rows = fetch_rows(tx.db, _MESSAGES, values, before=(CLAIMED_BYTES,))
    found = {(row[1], row[0]): row for row in rows}
    _hold_orphans(tx, [claim for key in claims if key not in found for claim in claims[key]])
    revision: Any = tx.db.execute(_REVISION).fetchall()[0][0]
    return [
        _taken(found[key], tuple(of_message), hashes.get(key[1], {}), revision)
        for key, of_message in claims.items()
        if key in found
    ]


def _taken(
    row: Sequence[Any],
    claims: tuple[Claim, ...],
    body_hashes: Mapping[str, bytes],
    revision: int,
) -> Taken:
    (
        id_, project, stream, sender, in_doubt, token, sandbox, size, content, key_id, digest,
        sealed, tags, only,
    ) = row  # fmt: skip
    if sealed is None and digest is None:
        sealed = b""
    claimed = Claimed(
        message=id_,
        project=project,
        stream=stream,
        sender=sender,
        key_id=key_id or 0,
        content_id=content,
        sealed=sealed,
        size=size,
        in_doubt=InDoubtPolicy(in_doubt),
        return_token=token,
        sandbox=bool(sandbox),
        body_hashes=body_hashes,
        claims=claims,
        revision=revision,
        tags=tags,
        only=only,
    )
    return Taken(claimed, digest or b"")


def _hold_orphans(tx: Transaction, claims: Sequence[Claim]) -> None:
    """Recipients whose message is gone can't be sent, nor given to anyone."""
    if not claims:
        return
    telemetry.alarm("content_corrupt").raise_(message=claims[0].message, error="no message row")
    moves = Moves(tx)
    for row in rows_by_key(tx, ((claim.message, claim.n) for claim in claims)).values():
        moves.move(row, State.HELD, reason=HeldReason.POISON)
        moves.event(row.message, row.n, "held", json_text({"reason": "message missing"}))
    moves.write()


def as_claim(row: Sequence[Any], *, term: int, deadline: int) -> Claim:
    """A `Claim` from the columns of `lane_rows`."""
    message, n, _, _, address, destination, route, attempts, crashes, not_before, expires_at = row
    return Claim(
        message=message,
        n=n,
        term=term,
        deadline=deadline,
        address=address,
        destination=destination,
        route=route,
        attempts=attempts,
        crashes=crashes,
        not_before=not_before,
        expires_at=expires_at,
        created_at=made_at(message),
    )


def _body_hashes(db: apsw.Connection, messages: Iterable[Id]) -> Mapping[Id, Mapping[str, bytes]]:
    """By message and form, the body hash of the earliest attempt in that form."""
    found: dict[Id, dict[str, bytes]] = {}
    for message, form, body_hash in fetch_rows(db, _BODY_HASHES, list(messages)):
        found.setdefault(message, {}).setdefault(form, body_hash)
    return found


Triple = tuple[Id, int, int]


def extend(
    tx: Transaction, owner: Id, claims: Sequence[Triple], *, lease_ms: int
) -> Sequence[bool]:
    """Set the deadline of (message, n, term) claims anew; False where the term is stale."""
    values = [value for claim in claims for value in claim]
    kept = set(fetch_rows(tx.db, _EXTEND, values, before=(tx.now + lease_ms, owner)))
    return [claim in kept for claim in claims]


def resign(tx: Transaction, owner: Id, claims: Sequence[Triple]) -> Sequence[bool]:
    """Queue (message, n, term) claims again, due at once. Like the claim itself, that leaves no
    line in the timeline: nothing was tried."""
    rows = rows_by_key(tx, ((message, n) for message, n, _ in claims))
    moves = Moves(tx)
    answers = []
    for message, n, term in claims:
        row = rows.get((message, n))
        holds = (
            row is not None
            and row.state is State.CLAIMED
            and row.owner == owner
            and row.term == term
        )
        if row is not None and holds:
            moves.move(row, State.QUEUED, not_before=min(row.not_before, tx.now))
        answers.append(holds)
    moves.write()
    return answers
