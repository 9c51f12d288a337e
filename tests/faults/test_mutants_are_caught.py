"""Seven mutants of the product, each with one promise broken, meet a schedule of faults that is
made for it: each is caught, for the right reason, and the product itself comes through the same.

The schedules are small and deterministic; the judge is the one that the promises are written in:
what was acknowledged, what arrived, what the record says.

Invariants: I1, I4, I5, I7, I8, I13.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clients import copies, email
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.power import Host
from tests.support.sessions import owners
from tests.support.stage import types
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

_QUICK = {"EVERPOST_DISPATCH_POLL_S": "0.1"}
_PATIENCE_S = 8.0
"""How long mail may take on a machine that has other work; what is not there by then is stuck."""

Found = set[str]
Schedule = Callable[[Path, tuple[str, ...]], Found]


@contextmanager
def _line(
    folder: Path,
    inside: tuple[str, ...],
    *,
    closed: tuple[str, ...] = (),
    processes: int = 1,
    **settings: str,
) -> Iterator[tuple[House, FarEnd]]:
    with (
        FarEnd(closed=closed) as far,
        House(
            folder / "d", settings=_QUICK | settings, processes=processes, inside=inside
        ) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        yield house, far


def _there(house: House, id_: str) -> bool:
    return house.get(f"/emails/{id_}").status == 200


def _ended(house: House, id_: str) -> bool:
    """Whether the message is delivered before patience ends."""
    try:
        house.wait_status(id_, "delivered", seconds=_PATIENCE_S)
    except AssertionError:
        return False
    return True


def _judge(house: House, far: FarEnd, id_: str, name: str) -> Found:
    """What is wrong with a message whose delivery should have come to its end."""
    if not _there(house, id_):
        return {"lost"}
    found: Found = set()
    if not _ended(house, id_):
        found.add("undrained")
    told = types(house, id_)
    if copies(far)[name] > 1 + told.count("in_doubt"):
        found.add("duplicates")
    if "delivered" not in told and "undrained" not in found:
        found.add("events")
    return found


def _killed_at_a_slow_flush(folder: Path, inside: tuple[str, ...]) -> Found:
    """The process is killed half a second after the answer, or at once when there is none: the
    flush takes a second."""
    with _line(folder, inside) as (house, far):
        (pid,) = house.children("api")
        with injecting(pid, "fdatasync:delay_enter=1000000", trace="fdatasync"):
            id_ = house.send(to=["one@receiver.test"])
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: pid not in house.children("api"), seconds=10, what="the kill")
        return _judge(house, far, id_, "one")


def _power_is_cut(folder: Path, inside: tuple[str, ...]) -> Found:
    """Right after the answers. All that came before them is on the disk."""
    with Host(folder) as host, FarEnd(closed=("banner",)) as far:
        house = host.house(settings=_QUICK, processes=1, inside=inside)
        with house:
            house.relay(far.url, tls="none")
            house.domain(signing="unsigned")
            os.sync()
            ids = [house.send(to=[f"u{n}@receiver.test"]) for n in range(10)]
            host.cut(house)
            house.start()
            far.open("banner")
            return {f for n, id_ in enumerate(ids) for f in _judge(house, far, id_, f"u{n}")}


def _killed_at_the_dot(folder: Path, inside: tuple[str, ...]) -> Found:
    with _line(folder, inside, closed=("dot",)) as (house, far):
        id_ = house.send(to=["one@receiver.test"])
        far.wait_reached("dot")
        house.kill_role("dispatch")
        far.open("dot")
        return _judge(house, far, id_, "one")


def _killed_between_two_requests(folder: Path, inside: tuple[str, ...]) -> Found:
    """Of one idempotency key."""
    with _line(folder, inside) as (house, _):
        headers = {"Idempotency-Key": "k"}
        first = house.post("/emails", email("one"), **headers)
        house.kill_role("api")
        second = house.post("/emails", email("one"), **headers)
        assert (first.status, second.status) == (200, 200)
        return set() if first.json == second.json else {"two for one key"}


def _a_flush_fails(folder: Path, inside: tuple[str, ...]) -> Found:
    """Of the dispatch process, its first, its second, and so on, each while one message is under
    way."""
    found: Found = set()
    with _line(folder, inside) as (house, far):
        (pid,) = house.children("dispatch")
        for n in range(1, 5):
            with injecting(pid, f"fdatasync:error=EIO:when={n}"):
                id_ = house.send(to=[f"u{n}@receiver.test"])
                found |= _judge(house, far, id_, f"u{n}")
    return found


def _woken_before_it_waits(folder: Path, inside: tuple[str, ...]) -> Found:
    """More mail comes between a claim and the wait that follows it; then no more."""
    slow = ("tests.support.inside.slow_look", *inside)
    with _line(folder, slow) as (house, far):
        ids = [house.send(to=["u0@receiver.test"])]
        if found := _judge(house, far, ids[0], "u0"):
            return found
        ids += [house.send(to=[f"u{n}@receiver.test"]) for n in range(1, 4)]
        return _judge(house, far, ids[-1], "u3")


def _paused_beyond_its_lease(folder: Path, inside: tuple[str, ...]) -> Found:
    """The owner of a claim stands still before its dot until another has delivered the mail."""
    with _line(
        folder,
        inside,
        closed=("data",),
        processes=2,
        EVERPOST_DISPATCH_LEASE_S="8",
        EVERPOST_DELIVERY_DOT_S="7",
        EVERPOST_NODE_HUNG_S="600",  # else it is killed on a slow machine, and never wakes
    ) as (house, far):
        id_ = house.send(to=["one@receiver.test"])
        far.wait_reached("data")
        (owner,) = set(owners(house.children("dispatch"), port=far.port).values())
        os.kill(owner, signal.SIGSTOP)
        try:
            far.open("data")
            far.wait_taken(1)
            house.wait_status(id_, "delivered")
        finally:
            os.kill(owner, signal.SIGCONT)
        wait_until(
            lambda: len(far.complete) > 1 or not owners([owner], port=far.port),
            seconds=10,
            what="the owner to go on",
        )
        return _judge(house, far, id_, "one")


_SCHEDULES: dict[str, tuple[Schedule, str]] = {
    "ack_before_commit": (_killed_at_a_slow_flush, "lost"),
    "no_fsync": (_power_is_cut, "lost"),
    "no_dot_log": (_killed_at_the_dot, "duplicates"),
    "idempotency_in_memory_only": (_killed_between_two_requests, "two for one key"),
    "settle_outside_transaction": (_a_flush_fails, "events"),
    "no_fencing": (_paused_beyond_its_lease, "duplicates"),
    "lost_wake_up": (_woken_before_it_waits, "undrained"),
}


_QUICK_ONES = ("idempotency_in_memory_only", "settle_outside_transaction")
_EACH = [
    pytest.param(name, marks=() if name in _QUICK_ONES else pytest.mark.long) for name in _SCHEDULES
]


@pytest.mark.parametrize("mutant", _EACH)
def test_the_product_comes_through(tmp_path: Path, mutant: str) -> None:
    schedule, _ = _SCHEDULES[mutant]
    assert schedule(tmp_path, ()) == set()


@pytest.mark.parametrize("mutant", _EACH)
def test_a_mutant_is_caught(tmp_path: Path, mutant: str) -> None:
    schedule, reason = _SCHEDULES[mutant]
    assert reason in schedule(tmp_path, (f"tests.chaos.mutants.{mutant}",))
