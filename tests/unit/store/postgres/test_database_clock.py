"""The database's time on a host whose own clock is wrong."""

import pytest

from everpost.store.postgres.time import DatabaseClock

MS = 1_000_000


class _Host:
    """`wall` and `steady` in milliseconds, by hand."""

    def __init__(self) -> None:
        self.wall = 7_200_000.0
        self.steady = 1_000.0
        self.clock = DatabaseClock(
            wall_ns=lambda: int(self.wall * MS), steady_ns=lambda: int(self.steady * MS)
        )

    def pass_(self, ms: float) -> None:
        self.wall += ms
        self.steady += ms

    def ask(self, *, there: float, back: float, database: float) -> None:
        """A question that takes so long each way; `database` is its time when it answers."""
        since = self.clock.started()
        self.pass_(there + back)
        self.clock.learn(int(database), since=since)


def test_before_any_answer_it_is_the_wall_clock() -> None:
    host = _Host()
    assert host.clock.now() == 7_200_000
    host.pass_(5)
    assert host.clock.now() == host.clock.steady() == 7_200_005


def test_the_databases_time_goes_on_whatever_the_wall_clock_does() -> None:
    host = _Host()
    host.ask(there=1, back=1, database=50_000)
    assert abs(host.clock.now() - 50_001) <= 1
    assert abs(host.clock.skew_ms - (7_200_002 - 50_001)) <= 1
    host.wall -= 3_600_000
    host.pass_(1_000)
    assert abs(host.clock.now() - 51_001) <= 1


def test_the_quickest_of_the_recent_answers_is_believed() -> None:
    host = _Host()
    host.ask(there=1, back=1, database=50_000)
    host.ask(there=0, back=500, database=50_002)  # it had waited in a queue
    assert abs(host.clock.now() - 50_501) <= 1


def test_an_answer_of_long_ago_is_forgotten() -> None:
    host = _Host()
    host.ask(there=0, back=0, database=50_000)
    for _ in range(40):  # the two clocks do not run at the same speed
        host.ask(there=1, back=1, database=50_010 + host.steady - 1_000 - 1)
    assert abs(host.clock.now() - (50_010 + host.steady - 1_000)) <= 2


@pytest.mark.parametrize("by", [-3_600_000, -1_000, 1_000, 60_000])
def test_after_a_pause_or_a_failover_the_first_answer_counts(by: int) -> None:
    """The machine was paused without its clock's knowing, or another server has another time: who
    went on by the quickest answers of before would take leases that are over for his own."""
    host = _Host()
    for _ in range(40):
        host.ask(there=0, back=0, database=5_000_000 + host.steady)
    host.ask(there=3, back=3, database=5_000_000 + by + host.steady + 3)
    assert abs(host.clock.now() - (5_000_000 + by + host.steady)) <= 4


def test_durations_are_real() -> None:
    clock = DatabaseClock()
    assert clock.monotonic() <= clock.monotonic()
