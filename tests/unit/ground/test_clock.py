"""A wall clock that is set, held off until it has settled (F19, I22)."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.assembly.wall import AnchorFile, borrow_clock
from everpost.clock import DRIFT_MS, SLACK_MS, Anchor, SettlingClock, SystemClock, follow

START, SETTLE_MS = 1_800_000_000_000, 600_000
STEPS = st.one_of(
    st.integers(-DRIFT_MS, DRIFT_MS),
    st.sampled_from([7_200_000, -7_200_000, 40 * 365 * 86_400_000]),
    st.integers(-(10**9), 10**9),
)
PASSES = st.one_of(
    st.integers(0, 400_000), st.sampled_from([SETTLE_MS // 2, SETTLE_MS - 1, SETTLE_MS])
)


class Kept:
    """An anchor in memory; `writable` False: nothing is kept."""

    def __init__(self, anchor: Anchor | None = None, *, writable: bool = True) -> None:
        self.anchor = anchor
        self.writable = writable

    def load(self) -> Anchor | None:
        return self.anchor

    def save(self, anchor: Anchor) -> None:
        if self.writable:
            self.anchor = anchor


class Host:
    """Both clocks, in milliseconds, and processes that read them."""

    def __init__(self) -> None:
        self.wall, self.up = START, 1_000_000
        self.told: list[tuple[Anchor, Anchor]] = []

    def pass_(self, ms: int) -> None:
        self.wall += ms
        self.up += ms

    def process(self, kept: Kept, settle_s: float = SETTLE_MS / 1000) -> SettlingClock:
        return SettlingClock(
            kept,
            settle_s=settle_s,
            changed=lambda was, now: self.told.append((was, now)),
            wall_ns=lambda: self.wall * 1_000_000,
            steady_ns=lambda: self.up * 1_000_000,
        )


@given(st.lists(st.tuples(PASSES, st.one_of(st.just(0), STEPS)), max_size=40))
def test_time_jumps_only_when_a_step_has_settled(moves: list[tuple[int, int]]) -> None:
    host = Host()
    clock = host.process(Kept())
    last = clock.now()
    # What the clock saw, newest last: how far the wall clock was ahead, and when.
    seen = [(START, host.up)]
    for passes, step in moves:
        host.pass_(passes)
        host.wall += step
        seen.append((host.wall - (host.up - seen[0][1]), host.up))
        now = clock.now()
        if abs(now - last - passes) > DRIFT_MS + SLACK_MS:
            assert now == host.wall
            assert host.up - _stood_since(seen) >= SETTLE_MS
        last = now
    host.pass_(1)
    clock.now()
    host.pass_(SETTLE_MS)
    assert clock.now() == host.wall


def _stood_since(seen: list[tuple[int, int]]) -> int:
    """Since when the wall clock was always found within a small step of where it is now."""
    found, since = seen[-1]
    for ahead, at in reversed(seen):
        if abs(ahead - found) > 2 * DRIFT_MS:
            break
        since = at
    return since


@given(STEPS, st.integers(0, SETTLE_MS - 1))
def test_a_step_that_is_taken_back_has_never_been(step: int, stood: int) -> None:
    host = Host()
    clock = host.process(Kept())
    host.wall += step
    seen = clock.now()
    assert abs(seen - START) <= DRIFT_MS
    host.pass_(stood)
    assert abs(clock.now() - START - stood) <= DRIFT_MS
    host.wall -= step
    assert clock.now() == START + stood
    assert clock.off_ms == 0


@pytest.mark.parametrize("step", [7_200_000, -7_200_000])
@pytest.mark.parametrize("writable", [True, False])
def test_a_step_that_stays_is_adopted_by_all_processes_together(step: int, writable: bool) -> None:
    host, kept = Host(), Kept(writable=writable)
    first = host.process(kept)
    host.wall += step
    assert first.now() == START
    assert first.off_ms == step
    host.pass_(SETTLE_MS // 2)
    late = host.process(kept)
    if writable:  # else there is nobody to tell it
        assert late.now() == first.now() == START + SETTLE_MS // 2
    host.pass_(SETTLE_MS // 2)
    assert late.now() == first.now() == host.wall
    assert first.off_ms == step
    host.pass_(SETTLE_MS)
    assert first.off_ms == 0
    assert host.told[-1][1].other is None


def test_a_restart_does_not_jump() -> None:
    host, kept = Host(), Kept()
    host.process(kept)
    host.wall += 7_200_000
    host.pass_(1_000)
    assert host.process(kept).now() == START + 1_000


def test_a_leap_second_is_followed() -> None:
    host = Host()
    clock = host.process(Kept())
    host.wall -= 1_000
    assert clock.now() == START - 1_000
    assert (clock.off_ms, host.told) == (0, [])


def test_no_time_to_settle_follows_at_once() -> None:
    host = Host()
    clock = host.process(Kept(), settle_s=0)
    host.wall += 7_200_000
    assert clock.now() == host.wall


def test_a_process_that_was_stopped_between_two_readings() -> None:
    """What passes between them is no step."""
    host = Host()
    pauses = iter([0, 3_600_000] + [0] * 20)

    def steady_ns() -> int:
        host.pass_(next(pauses, 0))
        return host.up * 1_000_000

    clock = SettlingClock(
        Kept(),
        settle_s=600,
        changed=lambda was, now: host.told.append((was, now)),
        wall_ns=lambda: host.wall * 1_000_000,
        steady_ns=steady_ns,
    )
    clock.now()
    assert clock.now() == host.wall
    assert host.told == []


def test_what_another_run_has_left_is_no_reason_to_wait() -> None:
    stale = Anchor(0, 7_200_000, since=10**12)
    assert follow(stale, found=7_200_000, at=5, settle_ms=SETTLE_MS) == Anchor(7_200_000)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"boot": "b"}', b"\xff", b'{"boot": 1, "offset": null}']
)
def test_a_torn_anchor_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clock.json"
    path.write_bytes(content)
    assert AnchorFile(path, boot="b").load() is None


def test_an_anchor_of_another_run_of_the_host_is_none(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    AnchorFile(path, boot="one").save(Anchor(7, 8, 9))
    assert AnchorFile(path, boot="one").load() == Anchor(7, 8, 9)
    assert AnchorFile(path, boot="two").load() is None
    assert json.loads(path.read_bytes())["offset"] == 7


@pytest.mark.parametrize("known", [Anchor(7, 8, 9), None])
def test_a_tool_moves_the_anchor(tmp_path: Path, known: Anchor | None) -> None:
    """It goes by it: what stands there is a step of decades that it does not follow."""
    path = tmp_path / "clock.json"
    if known is not None:
        AnchorFile(path, boot="b").save(known)
    clock = borrow_clock(path, boot="b", settle_s=600)
    off = abs(clock.now() - SystemClock().now())
    assert AnchorFile(path, boot="b").load() == known
    assert (off > 10**12) is (known is not None)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    file = AnchorFile(tmp_path / "gone" / "clock.json", boot="b")
    file.save(Anchor(1))
    assert file.load() is None
