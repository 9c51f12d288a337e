"""When a child is taken for hung, late or in a loop of crashes, and when it is started again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.recovery.watching import (
    CRASH_LOOP,
    HEALTHY_S,
    Life,
    Patience,
    Record,
    Verdict,
    backoff_s,
    ended,
    judge,
    slept,
    steadied,
)

PATIENCE = Patience(hung_s=15, start_s=120)
SERVING = Life(started=0, heard=100, ready=True)


@pytest.mark.parametrize(
    ("life", "now", "verdict"),
    [
        (Life(started=0), 120, Verdict.FINE),
        (Life(started=0), 120.1, Verdict.LATE),
        (Life(started=0, heard=119), 120.1, Verdict.LATE),
        (Life(started=0, heard=1), 16, Verdict.FINE),
        (Life(started=0, heard=1), 16.1, Verdict.HUNG),
        (SERVING, 115, Verdict.FINE),
        (SERVING, 115.1, Verdict.HUNG),
        (replace(SERVING, excused=110), 125, Verdict.FINE),
        (replace(SERVING, excused=110), 125.1, Verdict.HUNG),
        (Life(started=0, excused=60), 180, Verdict.FINE),
        (Life(started=0, excused=60), 180.1, Verdict.LATE),
    ],
)
def test_silence_is_borne_for_so_long_and_no_longer(
    life: Life, now: float, verdict: Verdict
) -> None:
    assert judge(life, PATIENCE, now=now) is verdict


def test_silence_is_not_looked_at_when_it_is_borne_for_ever() -> None:
    patience = Patience(hung_s=0, start_s=120)
    assert judge(SERVING, patience, now=1e9) is Verdict.FINE
    assert judge(Life(started=0, heard=1), patience, now=121) is Verdict.LATE


def test_a_program_that_loads_from_a_slow_disk_is_killed_for_its_silence() -> None:
    assert judge(Life(started=0), PATIENCE, now=100) is Verdict.FINE


def test_a_supervisor_that_was_paused_kills_everybody() -> None:
    assert slept(asked_s=1, passed_s=30)
    assert not slept(asked_s=1, passed_s=3.9)


def test_a_start_that_fails_is_tried_less_and_less_often() -> None:
    assert [backoff_s(n) for n in range(5)] == [0, 0.1, 0.2, 0.4, 0.8]
    assert backoff_s(10_000) == 30
    assert backoff_s(10_000, ready=True) == 2


@given(failures=st.integers(0, 10**6), ready=st.booleans())
def test_a_wait_gets_shorter_or_endless_with_more_failures(failures: int, ready: bool) -> None:
    wait = backoff_s(failures, ready=ready)
    assert 0 <= wait <= backoff_s(failures + 1, ready=ready) <= 30
    assert backoff_s(failures, ready=True) <= backoff_s(failures)


def test_short_lives_in_a_row_are_a_loop_until_one_is_long() -> None:
    short = Life(started=0, heard=HEALTHY_S - 1, ready=True)
    record = Record()
    for count in range(1, CRASH_LOOP + 1):
        assert not record.loops
        record = ended(record, short, now=50)
        assert record.short_lives == count
    assert record.loops
    assert record.due == 50 + backoff_s(CRASH_LOOP, ready=True)
    assert ended(record, replace(short, heard=HEALTHY_S), now=60) == Record(0, 60)


def test_a_hang_soon_after_the_start_is_a_long_life() -> None:
    life = Life(started=0, heard=1, ready=True)
    assert ended(Record(), life, now=1_000).short_lives == 1
    assert ended(Record(), Life(started=0), now=1_000).short_lives == 1


def test_the_alarm_stands_until_the_next_death() -> None:
    looping = Record(short_lives=3)
    assert steadied(looping, Life(started=0, heard=HEALTHY_S, ready=True)) == Record()
    assert steadied(looping, Life(started=0, heard=HEALTHY_S - 0.1, ready=True)) == looping
    assert steadied(looping, Life(started=0, heard=HEALTHY_S)) == looping  # it never served
    assert steadied(Record(), Life(started=0, heard=HEALTHY_S, ready=True)) == Record()
