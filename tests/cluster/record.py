"""The record of a run, read in bulk from the shared database; and who owned which claim."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg

from tests.chaos.record import Element, Recorded
from tests.cluster.cluster import Cluster
from tests.cluster.configuration import DATABASE

__all__ = [
    "Claims",
    "read_aliases",
    "read_overlaps",
    "read_record",
    "resolved",
    "shown",
    "two_owners",
]

_MESSAGES = """
SELECT id, subject, message_id, in_doubt, scheduled_at FROM messages WHERE alias_of IS NULL
"""
_ALIASES = "SELECT id, alias_of FROM messages WHERE alias_of IS NOT NULL"
_DOUBTS = "SELECT message, recipient FROM events WHERE type = 'in_doubt'"
_FIRSTS = "SELECT message, n, min(started_at) FROM attempts GROUP BY message, n"
_RECIPIENTS = "SELECT message, n, address, state, coalesce(reason, '') FROM recipients"
_CLAIMED = "SELECT message, n, term, owner FROM recipients WHERE state = 'claimed'"
_EVERY_S = 0.1
_DRAINED_S = 60.0
"""A journal is empty so long after an acknowledgement: the longest fault, and its healing."""

Claim = tuple[bytes, int, int]


def read_record(cluster: Cluster) -> list[Recorded]:
    """All messages but those that are only further names of others."""
    with cluster.connected(database=DATABASE) as db:
        doubts = Counter((bytes(m), n) for m, n in db.execute(_DOUBTS))
        firsts = {(bytes(m), n): at for m, n, at in db.execute(_FIRSTS)}
        elements: dict[bytes, dict[str, Element]] = defaultdict(dict)
        for message, n, address, state, reason in db.execute(_RECIPIENTS):
            place = (bytes(message), n)
            local = str(address).partition("@")[0]
            elements[place[0]][local] = Element(state, reason, doubts[place], firsts.get(place))
        return [
            Recorded(shown(id_), name, message_id, policy, due, elements.get(bytes(id_), {}))
            for id_, name, message_id, policy, due in db.execute(_MESSAGES)
        ]


def read_aliases(cluster: Cluster) -> dict[str, str]:
    """From a further name of a message to its id, both as the API shows them."""
    with cluster.connected(database=DATABASE) as db:
        return {shown(id_): shown(of) for id_, of in db.execute(_ALIASES)}


def resolved(
    events: Iterable[Mapping[str, Any]], aliases: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The history, with each id in the place of its further names: one key that two nodes accepted
    is one message."""
    found = []
    for event in events:
        changed = dict(event)
        if "ids" in event:
            changed["ids"] = [aliases.get(each, each) for each in event["ids"]]
        found.append(changed)
    return found


class Claims(threading.Thread):
    """Looks at the claims that there are, many times a second, until `ended`; what nobody saw is
    not known. `owners`: of each claim, that is, of a recipient and the term of the claim."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self.owners: dict[Claim, set[bytes]] = defaultdict(set)
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(_EVERY_S):
            with suppress(psycopg.Error), self._cluster.connected(database=DATABASE) as db:
                while not self.ended.wait(_EVERY_S):
                    for message, n, term, owner in db.execute(_CLAIMED).fetchall():
                        self.owners[bytes(message), n, term].add(bytes(owner))


def not_yet_shown(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Reads that were answered 404 of what only a journal had acknowledged a moment before: a node
    that neither took the message nor got its copy cannot know it. They are counted, and no loss."""
    acknowledged: dict[str, float] = {}
    found = []
    for event in events:
        if event["kind"] == "ok" and any("journal" in d for d in event.get("durability", ())):
            for id_ in event["ids"]:
                acknowledged.setdefault(id_, event["at"])
        elif event["kind"] == "fail" and event.get("op") == "get" and event["status"] == 404:
            since = acknowledged.get(event["of"])
            if since is not None and event["at"] - since < _DRAINED_S:
                found.append(event)
    return found


def two_owners(owners: Mapping[Claim, set[bytes]]) -> list[str]:
    """I13: claims that more than one worker was seen to have."""
    return sorted(
        f"{UUID(bytes=message)}/{n} term {term}: {len(who)} owners"
        for (message, n, term), who in owners.items()
        if len(who) > 1
    )


def overlapping(rows: Sequence[tuple[bytes, int, int, int]]) -> list[str]:
    """I13: recipients of which two attempts that were written ran at one time. `rows`: message, n,
    began, ended, by message, n and beginning."""
    found = []
    for (message, n, _, ended), (other, m, began, _) in pairwise(rows):
        if (message, n) == (other, m) and began < ended:
            found.append(f"{UUID(bytes=message)}/{n}: an attempt began {ended - began} ms too soon")
    return found


_ATTEMPTS = """
SELECT message, n, started_at, ended_at FROM attempts
WHERE outcome NOT IN ('abandoned', 'in_doubt') ORDER BY message, n, started_at
"""


def read_overlaps(cluster: Cluster) -> list[str]:
    with cluster.connected(database=DATABASE) as db:
        rows = [(bytes(m), n, began, ended) for m, n, began, ended in db.execute(_ATTEMPTS)]
    return overlapping(rows)


def shown(id_: Any) -> str:
    """As the API shows an id."""
    return str(UUID(bytes=bytes(id_)))
