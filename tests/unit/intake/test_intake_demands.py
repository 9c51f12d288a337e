"""What an acceptance must mean, said by request, stream or project, and whom it is asked of."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from everpost.intake import Prepared, for_relay
from everpost.model.errors import Invalid, Unavailable
from everpost.model.message import Assurance

from .conftest import Desk, draft

R, C = Assurance.REPLICATED, Assurance.COMMITTED

NewDesk = Callable[..., Desk]


def test_assurances_are_ordered() -> None:
    order = [
        Assurance.REPLICATED,
        Assurance.COMMITTED,
        Assurance.JOURNAL_PEER,
        Assurance.JOURNAL,
        Assurance.RELAXED,
    ]
    for n, one in enumerate(order):
        assert [one.meets(other) for other in order] == [False] * n + [True] * (5 - n)


def _demand(desk: Desk, *, stream: Assurance | None, project: Assurance | None) -> None:
    snapshot = desk.directory.now
    streams = {
        name: msgspec.structs.replace(row, durability=stream)
        for name, row in snapshot.streams.items()
    }
    projects = {
        name: msgspec.structs.replace(row, durability=project)
        for name, row in snapshot.projects.items()
    }
    desk.catalog(streams=streams, projects=projects)


@pytest.mark.parametrize(
    ("asked", "stream", "project", "least"),
    [
        (None, None, None, None),
        ("relaxed", None, None, None),
        ("committed", None, None, C),
        ("replicated", None, None, R),
        (None, C, None, C),
        (None, None, R, R),
        ("relaxed", C, None, C),
        ("committed", C, R, R),
        ("replicated", C, None, R),
    ],
)
def test_the_strongest_demand_counts(
    new_desk: NewDesk,
    asked: str | None,
    stream: Assurance | None,
    project: Assurance | None,
    least: Assurance | None,
) -> None:
    desk = new_desk(R)
    _demand(desk, stream=stream, project=project)
    assert desk.intake.prepare(desk.credential, draft(durability=asked)).least is least


def test_a_request_asks_for_what_this_server_never_gives(new_desk: NewDesk) -> None:
    with pytest.raises(Invalid, match="cannot promise `replicated`"):
        new_desk(C).prepare(draft(durability="replicated"))


def test_a_stream_demands_what_this_server_never_gives(new_desk: NewDesk) -> None:
    """No fault of the caller's, and not for ever: 503."""
    desk = new_desk(C)
    _demand(desk, stream=None, project=R)
    with pytest.raises(Unavailable, match="demands `replicated`"):
        desk.prepare(draft())


def _send(desk: Desk, *asked: str | None) -> Assurance:
    prepared = [desk.intake.prepare(desk.credential, draft(durability=each)) for each in asked]
    return asyncio.run(desk.intake.accept(desk.credential, prepared, answer=b"")).assurance


def test_only_who_demands_nothing_gets_less(desk: Desk) -> None:
    """One that demands is enough for all of a batch."""
    desk.store.assurance = Assurance.JOURNAL
    assert _send(desk, None) is Assurance.JOURNAL
    assert _send(desk, None, "committed") is C
    assert (len(desk.store.messages), len(desk.strict.messages)) == (1, 2)


def test_a_demand_that_is_not_met_now(desk: Desk) -> None:
    desk.strict.full = True
    with pytest.raises(Unavailable) as refusal:
        _send(desk, "committed")
    assert refusal.value.name == "service_unavailable"
    assert desk.store.messages == []


def test_a_test_of_a_relay_keeps_its_demand(desk: Desk) -> None:
    message = desk.prepare(draft())
    pinned = for_relay(Prepared(message, C), b"r" * 16)
    assert (pinned.message.only, pinned.least) == (b"r" * 16, C)
