"""The database's time on a host whose own clock is wrong."""

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
    for _ in range(40):  # the database was set by a second meanwhile
        host.ask(there=1, back=1, database=51_000 + host.steady - 1_000 - 1)
    assert abs(host.clock.now() - (51_000 + host.steady - 1_000)) <= 2


def test_durations_are_real() -> None:
    clock = DatabaseClock()
    assert clock.monotonic() <= clock.monotonic()
