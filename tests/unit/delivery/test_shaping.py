"""What a destination site gets from us: not more than it takes, not less than it could (F67, F68),
and nobody comes back with a herd (I19)."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from everpost.delivery import shaping
from everpost.delivery.shaping import (
    LONGEST_PAUSE_MS,
    LONGEST_STOP_MS,
    OTHERS_LATER_MS,
    PASSED_MS,
    PAUSE_MS,
    PENDING_MS,
    START,
    STOP_MS,
    News,
    Shaper,
    Word,
    word_of,
)
from everpost.model.outcome import (
    Bounced,
    Deferred,
    Delivered,
    Failed,
    InDoubt,
    Mark,
    Outcome,
    Phase,
    Reply,
    Speaker,
)

R, S = b"relay", "mx.there.test"
NOW = 1_800_000_000_000
CAP = 20
THEIRS, OURS = Speaker.DESTINATION, Speaker.SELF


def works(shaper: Shaper, times: int, *, now: int = NOW, cap: int = CAP) -> None:
    for _ in range(times):
        shaper.worked(R, S, cap=cap, now=now)


def refused(
    shaper: Shaper, word: Word, *, now: int = NOW, began: int | None = None, site: str = S
) -> int:
    return shaper.refused(
        R, site, word, "451 slow down", began=now if began is None else began, now=now
    )


def test_a_site_that_nobody_knows_is_flooded() -> None:
    shaper = Shaper()
    assert shaper.limit(R, S, cap=CAP) == START
    assert shaper.admits(R, S, START - 1, cap=CAP, now=NOW)
    assert not shaper.admits(R, S, START, cap=CAP, now=NOW)
    assert not shaper.admits(R, S, 2, cap=2, now=NOW)


def test_a_site_that_takes_all_never_gets_more() -> None:
    shaper = Shaper()
    works(shaper, START)
    assert shaper.limit(R, S, cap=CAP) == START + 1
    works(shaper, START)
    assert shaper.limit(R, S, cap=CAP) == START + 1  # not a full round yet
    works(shaper, 1)
    assert shaper.limit(R, S, cap=CAP) == START + 2
    works(shaper, 1000)
    assert shaper.limit(R, S, cap=CAP) == CAP
    assert shaper.limit(R, S, cap=3) == 3


def test_a_cohort_that_fails_together_halves_more_than_once() -> None:
    shaper = Shaper()
    works(shaper, 1000)
    for late in range(CAP):
        refused(shaper, Word.FEWER, began=NOW - 1, now=NOW + late)
    assert shaper.limit(R, S, cap=CAP) == CAP // 2
    for n in range(10):
        refused(shaper, Word.FEWER, now=NOW + 100 + n)
    assert shaper.limit(R, S, cap=CAP) == 1
    assert shaper.admits(R, S, 0, cap=CAP, now=NOW + 200)


def test_a_site_that_throttles_is_tried_during_its_cooldown() -> None:
    shaper = Shaper()
    works(shaper, 1000)
    assert refused(shaper, Word.PAUSE) == 0
    assert shaper.cooling(R, S, now=NOW) == NOW + PAUSE_MS
    assert shaper.why(R, S) == "451 slow down"
    assert not shaper.admits(R, S, 0, cap=CAP, now=NOW + PAUSE_MS - 1)
    assert shaper.cooling(b"other", S, now=NOW) is None
    assert not shaper.blocked(R, S, now=NOW)


def test_a_cooldown_ends_and_a_herd_comes() -> None:
    shaper = Shaper()
    works(shaper, 1000)
    refused(shaper, Word.PAUSE)
    works(shaper, 50, now=NOW + 10)  # what was on its way
    after = NOW + PAUSE_MS
    assert shaper.cooling(R, S, now=after) is None
    assert shaper.limit(R, S, cap=CAP) == 1
    works(shaper, 1, now=after)
    assert shaper.limit(R, S, cap=CAP) == 2


def test_a_site_that_throttles_again_and_again_is_asked_every_minute() -> None:
    shaper, now, pauses = Shaper(), NOW, []
    for _ in range(10):
        refused(shaper, Word.PAUSE, now=now)
        until = shaper.cooling(R, S, now=now)
        assert until is not None
        pauses.append(until - now)
        now = until
    assert pauses[:4] == [PAUSE_MS, 2 * PAUSE_MS, 4 * PAUSE_MS, 8 * PAUSE_MS]
    assert pauses[-1] == LONGEST_PAUSE_MS
    works(shaper, 10_000, now=now)
    refused(shaper, Word.PAUSE, now=now + 1)
    assert shaper.cooling(R, S, now=now + 1) == now + 1 + PAUSE_MS


def test_what_was_on_its_way_makes_the_pause_longer() -> None:
    shaper = Shaper()
    refused(shaper, Word.PAUSE, began=NOW - 500)
    for _ in range(20):
        refused(shaper, Word.PAUSE, began=NOW - 500, now=NOW + 300)
    assert shaper.cooling(R, S, now=NOW) == NOW + PAUSE_MS
    assert len(shaper.news()) == 1


def test_clock_that_is_set_back_makes_a_pause_of_hours_and_deaf_to_the_next() -> None:
    """I22."""
    shaper = Shaper()
    refused(shaper, Word.PAUSE)
    back = NOW - 7_200_000
    assert shaper.cooling(R, S, now=back) is None
    assert shaper.admits(R, S, 0, cap=CAP, now=back)
    refused(shaper, Word.PAUSE, began=back - 100, now=back)
    assert shaper.cooling(R, S, now=back) is not None


def cooldown(key: str, until: object) -> News:
    data = {"until": until, "strikes": 1, "stops": 0, "blocked": False}
    return News(shaping.COOLDOWN, key, data, NOW + 9)


def grey(site: str, relay: str, until: int) -> News:
    return News(shaping.GREYLIST, site, {"relay": relay, "passed": True, "until": until}, NOW + 9)


# --- between processes ----------------------------------------------------------------------------


def test_another_process_goes_on_during_the_cooldown() -> None:
    one, two = Shaper(), Shaper()
    refused(one, Word.PAUSE)
    two.learn(one.news(), now=NOW + 1)
    assert two.cooling(R, S, now=NOW + 1) == NOW + PAUSE_MS + OTHERS_LATER_MS
    assert one.news() == two.news() == ()


def test_all_processes_come_back_in_the_same_moment() -> None:
    """I19: who heard the refusal asks with one session; the others wait a little longer."""
    one, two = Shaper(), Shaper()
    works(two, 1000)
    refused(one, Word.PAUSE)
    told = one.news()
    two.learn(told, now=NOW + 1)
    one.learn(told, now=NOW + 1)  # its own words come back to it
    after = NOW + PAUSE_MS
    assert one.admits(R, S, 0, cap=CAP, now=after)
    assert not one.admits(R, S, 1, cap=CAP, now=after)
    assert not two.admits(R, S, 0, cap=CAP, now=after)
    assert two.limit(R, S, cap=CAP) == 1
    refused(one, Word.PAUSE, now=after + 1)
    two.learn(one.news(), now=after + 2)
    assert two.cooling(R, S, now=after + 2) == after + 1 + 2 * PAUSE_MS + OTHERS_LATER_MS


@pytest.mark.parametrize(
    ("told", "longest"),
    [
        ({"strikes": 1, "stops": 0}, PAUSE_MS),
        ({"strikes": 3, "stops": 0}, 4 * PAUSE_MS),
        ({"strikes": 99, "stops": 0}, LONGEST_PAUSE_MS),
        ({"strikes": 1, "stops": 1}, STOP_MS),
        ({"strikes": 1, "stops": 99}, LONGEST_STOP_MS),
    ],
)
def test_a_cooldown_of_before_the_clock_was_set_back_lasts_for_days(
    told: dict[str, int], longest: int
) -> None:
    """I22."""
    shaper = Shaper()
    data = {"until": NOW + 40 * 86_400_000, "blocked": False, **told}
    shaper.learn([News(shaping.COOLDOWN, f"{R.hex()}/{S}", data, NOW + 9)], now=NOW)
    assert shaper.cooling(R, S, now=NOW) == NOW + longest + OTHERS_LATER_MS


@pytest.mark.parametrize(
    "news",
    [
        News("weather", "x", {}, NOW + 1),
        cooldown("zz/mx.test", NOW + 9),
        cooldown(f"{R.hex()}/{S}", "soon"),
        cooldown(f"{R.hex()}/{S}", NOW),
        grey(S, "zz", NOW + 9),
        grey(S, R.hex(), NOW),
    ],
)
def test_news_that_nobody_understands_stop_the_process(news: News) -> None:
    shaper = Shaper()
    shaper.learn([news], now=NOW)
    assert shaper.admits(R, S, 0, cap=CAP, now=NOW)
    assert shaper.preferred(S, now=NOW) is None


# --- blocks ---------------------------------------------------------------------------------------


def test_an_address_that_is_refused_goes_on_knocking() -> None:
    shaper, now = Shaper(), NOW
    for hours in (1, 2, 4, 8, 16, 24, 24):
        assert refused(shaper, Word.STOP, now=now) == 0
        until = shaper.cooling(R, S, now=now)
        assert until == now + min(hours * STOP_MS, LONGEST_STOP_MS)
        assert shaper.blocked(R, S, now=now)
        now = until
    assert not shaper.blocked(R, S, now=now)
    other = Shaper()
    other.learn(shaper.news(), now=now - 1)
    assert other.blocked(R, S, now=now - 1)


def test_an_address_that_nobody_wants_is_tried_at_every_site() -> None:
    shaper = Shaper()
    assert [refused(shaper, Word.STOP, site=f"mx{n}.test") for n in range(4)] == [0, 0, 3, 4]


def test_a_stranger_with_three_domains_stops_the_relay() -> None:
    shaper = Shaper()
    for n in range(20):
        shaper.worked(R, f"good{n}.test", cap=CAP, now=NOW)
        shaper.worked(b"other", f"good{n}.test", cap=CAP, now=NOW)
    assert [refused(shaper, Word.STOP, site=f"evil{n}.test") for n in range(6)] == [0] * 6
    assert refused(shaper, Word.STOP, site="evil7.test") == 7


def test_blocks_of_yesterday_stop_the_relay_today() -> None:
    shaper = Shaper()
    found = [
        refused(shaper, Word.STOP, site=f"mx{n}.test", now=NOW + n * STOP_MS) for n in range(6)
    ]
    assert found == [0] * 6


# --- greylists ------------------------------------------------------------------------------------


def test_the_second_try_comes_from_another_address() -> None:
    """F68."""
    shaper = Shaper()
    assert shaper.preferred(S, now=NOW) is None
    refused(shaper, Word.GREY)
    assert shaper.preferred(S, now=NOW) == R
    assert shaper.admits(R, S, START - 1, cap=CAP, now=NOW)  # it is no wish for less
    shaper.refused(b"other", S, Word.GREY, "451", began=NOW, now=NOW + 1)
    assert shaper.preferred(S, now=NOW + 2) == R
    assert shaper.preferred(S, now=NOW + PENDING_MS) is None


def test_a_relay_that_is_gone_keeps_the_second_try() -> None:
    shaper = Shaper()
    refused(shaper, Word.GREY)
    refused(shaper, Word.GREY, now=NOW + 60_000)  # asked too soon: the first try still counts
    assert len(shaper.news()) == 1
    shaper.refused(b"other", S, Word.GREY, "451", began=NOW, now=NOW + STOP_MS)
    assert shaper.preferred(S, now=NOW + STOP_MS) == b"other"
    shaper.worked(b"other", S, cap=CAP, now=NOW + STOP_MS + 1)
    shaper.refused(R, S, Word.GREY, "451", began=NOW, now=NOW + STOP_MS + 2)
    assert shaper.preferred(S, now=NOW + STOP_MS + 2) == R


def test_who_passed_a_greylist_is_forgotten() -> None:
    shaper, other = Shaper(), Shaper()
    refused(shaper, Word.GREY)
    shaper.news()
    works(shaper, 3)
    (news,) = shaper.news()
    assert news.expires_at == NOW + PASSED_MS
    other.learn([news], now=NOW)
    assert other.preferred(S, now=NOW + PASSED_MS - 1) == R
    works(shaper, 1, now=NOW + 1000)
    assert shaper.news() == ()  # not a write a message
    works(shaper, 1, now=NOW + 2 * PENDING_MS)
    assert len(shaper.news()) == 1


def test_a_greylist_that_forgot_us_stays_passed() -> None:
    shaper = Shaper()
    refused(shaper, Word.GREY)
    works(shaper, 1)
    refused(shaper, Word.GREY, now=NOW + 10)
    assert shaper.news()[-1].data["passed"] is False
    shaper.worked(b"other", S, cap=CAP, now=NOW + 20)
    assert shaper.news() == ()


# --- memory ---------------------------------------------------------------------------------------


def test_a_million_sites_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaping, "_PATHS", 300)
    monkeypatch.setattr(shaping, "_SITES", 10)
    shaper = Shaper()
    refused(shaper, Word.PAUSE, site="cools.test")
    for n in range(1000):
        shaper.worked(R, f"{n}.test", cap=CAP, now=NOW)
        refused(shaper, Word.GREY, site=f"{n}.test")
    assert len(shaper._paths) == 300
    assert len(shaper._grey) == 10
    assert shaper.cooling(R, "cools.test", now=NOW) is not None
    for n in range(400):
        refused(shaper, Word.PAUSE, site=f"all{n}.test")
    assert len(shaper._paths) == 300
    shaper.learn(
        [
            News(
                shaping.GREYLIST,
                f"n{n}",
                {"relay": R.hex(), "passed": True, "until": NOW + 9},
                NOW + 9,
            )
            for n in range(50)
        ],
        now=NOW,
    )
    assert len(shaper._grey) == 10


# --- words ----------------------------------------------------------------------------------------

NO, LATER, BYE = Reply(550, "no"), Reply(451, "later"), Reply(421, "bye")


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Delivered(Reply(250, "ok")), Word.WORKED),
        (Bounced(NO, Phase.RCPT), Word.WORKED),
        (Bounced(NO, Phase.RCPT, mark=Mark.BLOCK), Word.STOP),
        (Bounced(NO, Phase.MAIL, OURS), Word.NOTHING),
        (Deferred("x", Phase.RCPT, THEIRS, LATER, mark=Mark.BLOCK), Word.STOP),
        (Deferred("x", Phase.RCPT, THEIRS, LATER, mark=Mark.GREYLIST), Word.GREY),
        (Deferred("x", Phase.RCPT, THEIRS, LATER, throttle=True, mark=Mark.MAILBOX), Word.NOTHING),
        (Deferred("x", Phase.RCPT, THEIRS, LATER, throttle=True), Word.PAUSE),
        (Deferred("x", Phase.RCPT, THEIRS, LATER), Word.NOTHING),
        (Deferred("x", Phase.GREET, THEIRS, NO), Word.FEWER),
        (Deferred("x", Phase.RCPT, THEIRS, BYE), Word.FEWER),
        (Deferred("x", Phase.CONNECT, THEIRS), Word.FEWER),
        (Deferred("x", Phase.BODY, THEIRS), Word.FEWER),
        (Deferred("x", Phase.ROUTE, THEIRS, LATER), Word.NOTHING),
        (Deferred("x", Phase.CONNECT, OURS, relay_fault=True), Word.NOTHING),
        (Failed("x", Phase.COMPOSE), Word.NOTHING),
        (InDoubt("x"), Word.NOTHING),
    ],
)
def test_an_answer_that_is_taken_for_another(outcome: Outcome, word: Word) -> None:
    assert word_of(outcome) is word


# --- whatever comes -------------------------------------------------------------------------------


class Processes(RuleBasedStateMachine):
    """Two processes with one path, any order of words, news that come late."""

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.shapers = (Shaper(), Shaper())
        self.on_the_way: list[Iterable[News]] = []
        self.quiet_until = 0

    @rule(ms=st.integers(1, LONGEST_PAUSE_MS))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule(which=st.integers(0, 1), times=st.integers(1, 30), cap=st.integers(1, 30))
    def it_works(self, which: int, times: int, cap: int) -> None:
        for _ in range(times):
            self.shapers[which].worked(R, S, cap=cap, now=self.now)

    @rule(which=st.integers(0, 1), word=st.sampled_from(list(Word)[2:]), ago=st.integers(0, 9))
    def it_refuses(self, which: int, word: Word, ago: int) -> None:
        shaper = self.shapers[which]
        shaper.refused(R, S, word, "x", began=self.now - ago, now=self.now)
        self.on_the_way.append(shaper.news())

    @rule()
    def news_come(self) -> None:
        for news in self.on_the_way:
            for shaper in self.shapers:
                shaper.learn(news, now=self.now)
        self.on_the_way.clear()

    @invariant()
    def limits_hold(self) -> None:
        for shaper in self.shapers:
            for cap in (1, 7, 30):
                limit = shaper.limit(R, S, cap=cap)
                assert 1 <= limit <= cap
                assert not shaper.admits(R, S, limit, cap=cap, now=self.now)
                cooling = shaper.cooling(R, S, now=self.now)
                assert shaper.admits(R, S, limit - 1, cap=cap, now=self.now) is (cooling is None)
                if cooling is not None:
                    assert 0 < cooling - self.now <= LONGEST_STOP_MS + OTHERS_LATER_MS

    @invariant()
    def who_knows_of_a_pause_keeps_it(self) -> None:
        if not self.on_the_way:
            waits = [s.cooling(R, S, now=self.now) for s in self.shapers]
            known = [w for w in waits if w is not None]
            assert len(known) != 1 or known[0] - self.now <= OTHERS_LATER_MS


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(1, 50), st.integers(1, 500))
def test_growth_that_overshoots(cap: int, times: int) -> None:
    shaper = Shaper()
    works(shaper, times, cap=cap)
    assert shaper.limit(R, S, cap=10_000) <= max(cap, START)
