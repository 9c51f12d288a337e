"""When a relay is taken out, and how it comes back (F57, F59, F60, F61)."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from everpost.delivery.breaker import (
    DOUBLINGS,
    FIRST_SHARE,
    FORGIVEN_AFTER,
    LONG,
    OPEN_FOR,
    PATIENCE,
    PATIENCE_PART,
    PROVED_IN_A_ROW,
    SLOW_START,
    SOFT_IN_A_ROW,
    TRIALS,
    WINDOW,
    WINDOW_MINIMUM,
    Circuit,
    Fault,
    Spare,
    fault_of,
    why_of,
)
from everpost.delivery.classify import classify
from everpost.model.health import CircuitState, Health
from everpost.model.outcome import Deferred, Phase, Reply, Speaker, Via

NO = Deferred("no connection: refused", Phase.CONNECT, Speaker.RELAY, relay_fault=True)
NOT_YOU = Deferred(
    "the relay refuses the sender", Phase.MAIL, Speaker.RELAY, Reply(550, "not you", "5.7.1"),
    relay_fault=True,
)  # fmt: skip
WALL = 1_700_000_000_000
CLOSED, OPEN, HALF_OPEN = CircuitState


class Driven:
    """A circuit and a clock."""

    def __init__(self, *, probed: bool = False) -> None:
        self.circuit = Circuit(probed=probed)
        self.now = 1000.0

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self.circuit.look(self.now)

    def works(self, *, began: float | None = None) -> bool:
        return self.circuit.worked(began=self.now if began is None else began, now=self.now)

    def hard(self, *, spare: Spare = Spare.PLENTY, took: float = 0.0) -> bool:
        return self.circuit.failed(
            NO, Fault.HARD, party="x", spare=spare, began=self.now - took, now=self.now
        )

    def soft(self, party: str = "x", *, spare: Spare = Spare.PLENTY) -> bool:
        return self.circuit.failed(
            NOT_YOU, Fault.SOFT, party=party, spare=spare, began=self.now, now=self.now
        )

    def opened(self) -> "Driven":
        assert self.hard()
        return self

    def half_opened(self) -> "Driven":
        self.opened()
        assert self.wait(OPEN_FOR)
        return self

    @property
    def state(self) -> CircuitState:
        return self.circuit.state

    @property
    def open_for(self) -> float:
        assert self.circuit.until is not None
        return round(self.circuit.until - self.now, 6)


# --- what counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "phase", "expected"),
    [
        ("554 5.7.1 no", Phase.GREET, Fault.HARD),
        ("535 5.7.8 bad login", Phase.LOGIN, Fault.HARD),
        ("530 5.7.0 authentication required", Phase.MAIL, Fault.HARD),
        ("421 4.3.2 closing", Phase.MAIL, Fault.HARD),
        ("421 4.3.2 closing", Phase.RCPT, Fault.SOFT),
        ("553 5.7.1 sender address rejected: not owned by user", Phase.MAIL, Fault.SOFT),
        ("550 5.7.1 relaying denied", Phase.RCPT, Fault.SOFT),
        ("550 5.4.5 daily user sending quota exceeded", Phase.RCPT, Fault.SOFT),
        ("450 4.2.0 greylisted", Phase.RCPT, None),
    ],
)
def test_answers_count_by_phase_and_code(said: str, phase: Phase, expected: Fault | None) -> None:
    code, enhanced, text = said.split(" ", 2)
    outcome = classify(Reply(int(code), text, enhanced), phase)
    assert isinstance(outcome, Deferred)
    assert fault_of(outcome) is expected


def test_silence_counts_by_phase() -> None:
    def silent(phase: Phase, speaker: Speaker = Speaker.RELAY) -> Fault | None:
        return fault_of(Deferred("no answer", phase, speaker, relay_fault=True))

    assert silent(Phase.CONNECT) is silent(Phase.MAIL) is Fault.HARD
    assert silent(Phase.RCPT) is silent(Phase.DOT) is Fault.SOFT
    assert silent(Phase.CONNECT, Speaker.SELF) is Fault.SOFT
    assert silent(Phase.CONNECT, Speaker.DESTINATION) is None
    assert fault_of(Deferred("no answer", Phase.CONNECT, Speaker.RELAY)) is None


def test_what_a_mail_host_says_blames_no_relay() -> None:
    for phase in (Phase.GREET, Phase.MAIL, Phase.RCPT, Phase.DOT):
        outcome = classify(Reply(421, "4.7.0 too many", "4.7.0"), phase, via=Via.MX)
        assert isinstance(outcome, Deferred)
        assert fault_of(outcome) is None


def test_reason_is_the_answer_or_our_words() -> None:
    assert why_of(NO) == "no connection: refused"
    assert why_of(NOT_YOU) == "550 5.7.1 not you"


# --- hard faults ----------------------------------------------------------------------------------


def test_relay_that_never_worked_is_out_at_once() -> None:
    driven = Driven().opened()
    assert (driven.state, driven.open_for) == (OPEN, OPEN_FOR)
    assert (driven.circuit.why, driven.circuit.phase) == ("no connection: refused", "connect")
    assert driven.circuit.speaker == "relay"
    assert driven.circuit.share(driven.now) == 0.0


def test_relay_that_worked_is_out_after_two_in_a_row() -> None:
    driven = Driven()
    driven.works()
    assert not driven.hard()
    driven.works()
    assert not driven.hard()
    assert driven.hard()


def test_one_time_out_is_enough_if_nothing_else_works_meanwhile() -> None:
    driven = Driven()
    driven.works()
    driven.wait(10)
    assert driven.hard(took=LONG)
    driven = Driven()
    driven.wait(10)
    driven.works()
    driven.wait(LONG / 2)
    assert not driven.hard(took=LONG)  # it worked since


def test_late_word_of_what_began_before_counts_neither_way() -> None:
    driven = Driven().half_opened()
    before = driven.now - 1
    assert not driven.works(began=before)
    assert not driven.circuit.failed(
        NO, Fault.HARD, party="", spare=Spare.PLENTY, began=before, now=driven.now
    )
    assert driven.state is HALF_OPEN
    driven.opened()
    assert not driven.works()
    assert not driven.hard()
    assert not driven.circuit.disproved(NO, spare=Spare.PLENTY, now=driven.now)


# --- soft faults ----------------------------------------------------------------------------------


def test_refusals_of_several_senders_in_a_row_take_it_out() -> None:
    driven = Driven()
    for n in range(SOFT_IN_A_ROW - 1):
        assert not driven.soft(f"{n}.test")
    assert driven.soft("last.test")


def test_one_sender_alone_takes_nothing_out() -> None:
    driven = Driven()
    for _ in range(10 * SOFT_IN_A_ROW):
        assert not driven.soft()


def test_one_sender_takes_it_out_where_another_relay_took_its_mail() -> None:
    driven = Driven()
    for _ in range(PROVED_IN_A_ROW - 1):
        assert not driven.soft()
        assert not driven.circuit.disproved(NOT_YOU, spare=Spare.PLENTY, now=driven.now)
    assert not driven.soft()
    assert not driven.circuit.disproved(NOT_YOU, spare=Spare.FLOOR, now=driven.now)
    assert driven.circuit.disproved(NOT_YOU, spare=Spare.PLENTY, now=driven.now)
    driven = Driven()
    for _ in range(SOFT_IN_A_ROW):
        assert not driven.soft()
    assert driven.circuit.disproved(NOT_YOU, spare=Spare.PLENTY, now=driven.now)


def test_success_in_between_ends_the_row() -> None:
    driven = Driven()
    for n in range(SOFT_IN_A_ROW - 1):
        driven.soft(f"{n}.test")
    driven.works()
    assert not driven.circuit.disproved(NOT_YOU, spare=Spare.PLENTY, now=driven.now)
    assert not driven.circuit.doubtful
    assert not driven.soft("again.test")
    assert driven.circuit.doubtful


def test_poor_rate_takes_it_out() -> None:
    """Every second message fails: no long row, and still no good."""
    driven = Driven()
    for n in range(WINDOW_MINIMUM):
        driven.works()
        if driven.soft(f"{n % 3}.test"):
            break
    assert driven.state is OPEN
    assert n == WINDOW_MINIMUM // 2 - 1


def test_poor_rate_of_two_parties_only_is_theirs() -> None:
    driven = Driven()
    for n in range(10 * WINDOW_MINIMUM):
        driven.works()
        assert not driven.soft(f"{n % 2}.test")


def test_faults_fall_out_of_the_window() -> None:
    driven = Driven()
    for n in range(WINDOW_MINIMUM // 2 - 1):
        driven.works()
        driven.soft(f"{n % 3}.test")
    driven.wait(WINDOW + 1)
    driven.works()
    assert not driven.soft("a.test")
    driven.wait(WINDOW / 3)
    for n in range(WINDOW_MINIMUM // 2 - 2):
        driven.works()
        assert not driven.soft(f"{n % 3}.test")


def test_last_ones_stay_for_soft_faults_and_come_back_soon_after_hard_ones() -> None:
    driven = Driven()
    for n in range(10 * SOFT_IN_A_ROW):
        assert not driven.soft(f"{n}.test", spare=Spare.FLOOR)
    for _ in range(5):
        assert driven.hard(spare=Spare.FLOOR)
        assert driven.open_for == OPEN_FOR
        assert driven.wait(OPEN_FOR)


def test_outlier_is_taken_out_once() -> None:
    driven = Driven()
    why = Deferred("far slower", Phase.DOT, Speaker.RELAY)
    assert driven.circuit.takes_out(why, now=driven.now)
    assert (driven.state, driven.circuit.why) == (OPEN, "far slower")
    assert not driven.circuit.takes_out(why, now=driven.now)


# --- coming back ----------------------------------------------------------------------------------


def test_comes_back_by_one_message_and_slowly() -> None:
    driven = Driven().half_opened()
    assert driven.state is HALF_OPEN
    assert driven.circuit.share(driven.now) == 0.0
    assert driven.works()
    assert driven.state is CLOSED
    assert driven.circuit.why == ""
    assert driven.circuit.share(driven.now) == FIRST_SHARE
    driven.wait(SLOW_START / 2)
    assert driven.circuit.share(driven.now) == 0.5
    assert driven.circuit.ramping
    driven.wait(SLOW_START / 2)
    assert driven.circuit.share(driven.now) == 1.0
    assert not driven.circuit.ramping


def test_backlog_comes_by_one_more_at_once_for_each_round_that_worked() -> None:
    """F38."""
    driven = Driven()
    assert driven.circuit.places(50) == 50
    driven.half_opened().works()
    for at_once in range(1, 10):
        assert driven.circuit.places(50) == at_once
        for _ in range(at_once):
            driven.works()
    assert driven.circuit.places(3) == 3
    driven.wait(SLOW_START)
    driven.circuit.share(driven.now)
    assert driven.circuit.places(50) == 50


def test_what_hangs_does_not_keep_the_backlog_back() -> None:
    driven = Driven().half_opened()
    driven.works()
    driven.wait(SLOW_START / 2)
    driven.circuit.share(driven.now)
    assert driven.circuit.places(50) == 26
    driven.hard()
    driven.wait(60)
    driven.works()
    assert (driven.state, driven.circuit.places(50)) == (CLOSED, 1)


def test_not_before_its_time() -> None:
    driven = Driven().opened()
    assert not driven.wait(OPEN_FOR - 0.1)
    assert driven.wait(0.1)
    assert not driven.wait(0.1)  # half open already


def test_trial_that_fails_hard_ends_it_and_soft_ones_need_two() -> None:
    assert Driven().half_opened().hard()
    driven = Driven().half_opened()
    for _ in range(TRIALS - 1):
        assert not driven.soft()
    assert driven.soft()
    driven = Driven().half_opened()
    for _ in range(TRIALS):
        assert not driven.soft(spare=Spare.FLOOR)


def test_one_hard_fault_is_enough_during_the_slow_start() -> None:
    driven = Driven().half_opened()
    driven.works()
    driven.wait(SLOW_START - 1)
    driven.works()
    assert driven.hard()


def test_flapping_relay_is_left_alone_for_longer_and_longer() -> None:
    """F60: five seconds up, five seconds down."""
    driven = Driven()
    times = []
    for _ in range(DOUBLINGS + 3):
        driven.opened()
        times.append(driven.open_for)
        driven.wait(driven.open_for)
        driven.works()
        driven.wait(5)
    assert times == [OPEN_FOR * 2 ** min(n, DOUBLINGS) for n in range(DOUBLINGS + 3)]
    driven.wait(FORGIVEN_AFTER)
    driven.works()
    driven.hard()
    driven.hard()
    assert driven.open_for == OPEN_FOR * 2**DOUBLINGS
    driven.wait(driven.open_for)
    driven.works()
    driven.wait(FORGIVEN_AFTER * 100)
    driven.works()
    driven.hard()
    driven.hard()
    assert driven.open_for == OPEN_FOR


# --- probes ---------------------------------------------------------------------------------------


def test_probed_relay_waits_for_the_probe_first() -> None:
    driven = Driven(probed=True).opened()
    assert not driven.wait(OPEN_FOR)
    assert driven.circuit.probed(None, spare=Spare.PLENTY, now=driven.now)
    assert driven.state is HALF_OPEN
    driven = Driven(probed=True).opened()
    assert not driven.circuit.probed(None, spare=Spare.PLENTY, now=driven.now)  # too early
    assert driven.wait(OPEN_FOR)
    driven = Driven(probed=True).opened()
    assert not driven.wait((1 + PATIENCE + PATIENCE_PART) * OPEN_FOR - 0.1)  # nobody probes
    assert driven.wait(0.1)


def test_bad_probe_puts_the_return_off() -> None:
    driven = Driven(probed=True).opened()
    driven.wait(OPEN_FOR - 1)
    later = Deferred("still no", Phase.GREET, Speaker.RELAY, relay_fault=True)
    assert driven.circuit.probed(later, spare=Spare.PLENTY, now=driven.now)
    assert (driven.open_for, driven.circuit.why) == (OPEN_FOR, "still no")


def test_probes_of_a_relay_in_service_count_only_when_bad() -> None:
    driven = Driven()
    assert not driven.circuit.probed(None, spare=Spare.PLENTY, now=driven.now)
    assert driven.circuit.probed(NO, spare=Spare.PLENTY, now=driven.now)
    assert driven.state is OPEN


def test_probe_that_is_refused_as_mail_would_be_takes_no_last_one_out() -> None:
    """It may be the probe's sender that is unwelcome."""
    driven = Driven()
    for _ in range(10):
        assert not driven.circuit.probed(NOT_YOU, spare=Spare.FLOOR, now=driven.now)
    driven.opened().now += OPEN_FOR
    assert driven.circuit.probed(NOT_YOU, spare=Spare.FLOOR, now=driven.now)
    assert driven.state is HALF_OPEN
    driven = Driven()
    driven.works()
    assert not driven.circuit.probed(NOT_YOU, spare=Spare.PLENTY, now=driven.now)
    assert driven.circuit.probed(NOT_YOU, spare=Spare.PLENTY, now=driven.now)


# --- between processes ----------------------------------------------------------------------------


def told(driven: Driven) -> Health:
    return driven.circuit.health(b"r", now=driven.now, wall=WALL)


def test_clock_that_is_set_back_keeps_a_relay_out_for_hours() -> None:
    """I22: what others wrote before seems to be of times that are yet to come."""
    ahead = WALL + 7_200_000
    driven = Driven()
    known = Health(relay=b"r", state=OPEN, since=ahead, until=ahead + 5_000)
    assert learns(driven, known)
    assert driven.circuit.since <= driven.now
    assert driven.circuit.until is not None
    assert driven.circuit.until - driven.now <= OPEN_FOR * 2**DOUBLINGS
    driven.now += 1
    assert learns(driven, Health(relay=b"r", state=CLOSED, since=WALL + 1))


def learns(driven: Driven, known: Health) -> bool:
    return driven.circuit.learn(known, now=driven.now, wall=WALL)


def test_other_processes_follow() -> None:
    one, other = Driven(), Driven()
    one.works()
    one.wait(1)
    other.wait(1)
    one.hard()
    one.hard()
    assert learns(other, told(one))
    assert (other.state, other.circuit.why) == (OPEN, one.circuit.why)
    assert other.open_for == one.open_for
    assert not learns(other, told(one))
    assert not learns(one, told(other))
    for driven in (one, other):
        driven.now += OPEN_FOR + 1
    one.circuit.look(one.now)
    assert learns(other, told(one))
    assert other.state is HALF_OPEN
    one.now += 1
    other.now += 1
    one.works()
    assert learns(other, told(one))
    assert (other.state, other.circuit.share(other.now)) == (CLOSED, FIRST_SHARE)


def test_the_later_word_counts() -> None:
    one, other = Driven().opened(), Driven()
    other.wait(OPEN_FOR)
    other.opened()
    other.wait(OPEN_FOR)
    assert other.state is HALF_OPEN
    one.now = other.now
    assert not learns(other, told(one))  # it opened before that
    assert learns(one, told(other))
    assert one.state is HALF_OPEN


def test_a_return_that_was_put_off_is_put_off_for_all() -> None:
    one = Driven().opened()
    other = Driven().opened()
    for driven in (one, other):
        driven.now += 2
    one.circuit.probed(NO, spare=Spare.PLENTY, now=one.now)
    assert learns(other, told(one))
    assert other.open_for == OPEN_FOR


def test_word_of_an_open_circuit_without_an_end_is_none() -> None:
    assert not learns(Driven(), Health(relay=b"r", state=OPEN, since=WALL + 1000))


# --- all together ---------------------------------------------------------------------------------


class Circuits(RuleBasedStateMachine):
    """Whatever happens: a circuit is open for a bounded time, gets mail only when it is not open,
    and closes by nothing but work (its own, or another process' word)."""

    @initialize(probed=st.booleans())
    def begin(self, probed: bool) -> None:
        self.driven = Driven(probed=probed)
        self.before = CLOSED

    def _turned(self, changed: bool, *allowed: tuple[CircuitState, CircuitState]) -> None:
        turn = (self.before, self.driven.state)
        assert turn[0] is turn[1] or (changed and turn in allowed), turn
        self.before = self.driven.state

    @rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds: float) -> None:
        due = self.driven.circuit.next_look
        changed = self.driven.wait(seconds)
        assert changed is (due is not None and self.driven.now >= due)
        self._turned(changed, (OPEN, HALF_OPEN))

    @rule(took=st.floats(0, 20))
    def a_message_works(self, took: float) -> None:
        changed = self.driven.works(began=self.driven.now - took)
        self._turned(changed, (HALF_OPEN, CLOSED))

    @rule(
        fault=st.sampled_from(Fault),
        spare=st.sampled_from(Spare),
        party=st.sampled_from("abcd"),
        took=st.floats(0, 20),
    )
    def a_message_fails(self, fault: Fault, spare: Spare, party: str, took: float) -> None:
        now = self.driven.now
        changed = self.driven.circuit.failed(
            NO, fault, party=party, spare=spare, began=now - took, now=now
        )
        assert not (changed and fault is Fault.SOFT and spare is Spare.FLOOR)
        self._turned(changed, (CLOSED, OPEN), (HALF_OPEN, OPEN))

    @rule(good=st.booleans(), spare=st.sampled_from(Spare))
    def a_probe_comes_back(self, good: bool, spare: Spare) -> None:
        changed = self.driven.circuit.probed(None if good else NO, spare=spare, now=self.driven.now)
        turns = [(OPEN, HALF_OPEN)] if good else [(CLOSED, OPEN), (HALF_OPEN, OPEN)]
        self._turned(changed, *turns)

    @rule(spare=st.sampled_from(Spare))
    def another_relay_takes_it(self, spare: Spare) -> None:
        changed = self.driven.circuit.disproved(NO, spare=spare, now=self.driven.now)
        self._turned(changed, (CLOSED, OPEN), (HALF_OPEN, OPEN))

    @rule(
        state=st.sampled_from(CircuitState),
        since=st.integers(-60_000, 0),
        opened=st.integers(0, 300_000),
    )
    def another_process_speaks(self, state: CircuitState, since: int, opened: int) -> None:
        until = WALL + opened if state is OPEN else None
        known = Health(relay=b"r", state=state, since=WALL + since, until=until)
        changed = learns(self.driven, known)
        assert not changed or self.driven.state is state
        self.before = self.driven.state

    @invariant()
    def it_holds(self) -> None:
        circuit = self.driven.circuit
        assert (circuit.until is not None) is (circuit.state is OPEN)
        if circuit.until is not None:
            assert circuit.until - self.driven.now <= OPEN_FOR * 2**DOUBLINGS
        share = circuit.share(self.driven.now)
        assert (share > 0) is (circuit.state is CLOSED)
        assert share <= 1


TestCircuits = Circuits.TestCase
TestCircuits.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
