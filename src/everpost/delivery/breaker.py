"""When a relay gets no mail, and how it comes back: its circuit. Pure; `now` is monotonic seconds.

Closed, it gets its share. What the relay itself does wrong is counted, by how much it says; enough
of it opens the circuit: no mail at all, for a time that doubles with every opening and is forgiven
only after a while of health (F60). Then half open: one message at a time, until one works or two
fail. Back in service its share grows slowly, and while it does a single hard fault is enough; so do
the transactions that it is given at once, from one: the backlog does not come as a herd (F38).

What a destination says never counts, nor one sender's or one destination's trouble alone (F61).
"""

from enum import StrEnum

from everpost.model.health import CircuitState, Health
from everpost.model.outcome import Deferred, Phase, Speaker

__all__ = ["Circuit", "Fault", "Spare", "fault_of", "why_of"]

OPEN_FOR = 5.0
"""Seconds without mail after the first opening; doubled with each further one …"""
DOUBLINGS = 6
"""… but not more often than this: about five minutes."""
FORGIVEN_AFTER = 60.0
"""Seconds of health that make one opening forgotten."""
PATIENCE = 2.0
PATIENCE_PART = 0.2
"""A relay that is probed waits for the probe's word longer, before mail tries it instead: so many
times the first opening, and this part of the present one, since probes are spread."""
SLOW_START = 30.0
"""Seconds over which the share of a relay that is back grows …"""
FIRST_SHARE = 0.1
"""… from this part of its weight."""
HARD_IN_A_ROW = 2
"""Hard faults that open a circuit; one, where nothing worked since it was last open, or the slow
start is not over, or where the fault took its time and nothing else worked meanwhile."""
LONG = 1.0
"""Seconds from which a fault took its time."""
SOFT_IN_A_ROW = 5
"""Soft faults in a row that open it, if they are more than one party's: several senders' at MAIL,
several destinations' later, or a message that another relay took …"""
PROVED_IN_A_ROW = 3
"""… and so many, if other relays took each of their messages."""
TRIALS = 2
"""Soft faults in a row that open a circuit which is half open."""
WINDOW = 30.0
WINDOW_MINIMUM = 20
WINDOW_RATE = 0.5
WINDOW_PARTIES = 3
"""Over the last seconds, of at least so many transactions this part failed, for so many parties."""

_BUCKETS = 6
_BUCKET = WINDOW / _BUCKETS
_PARTIES_KEPT = 8

_SESSION = frozenset({Phase.CONNECT, Phase.GREET, Phase.SECURE, Phase.LOGIN})
_CLOSED_TO_US = frozenset(
    {"relay-demands-login", "relay-demands-login-enhanced", "relay-account", "ses-paused"}
)
"""Rules of the classification that speak of our account with the relay, whatever the message."""


class Fault(StrEnum):
    """What a relay did wrong. HARD: there is no session to be had, or none for us. SOFT: it failed
    this message, which may be the message's own doing."""

    HARD = "hard"
    SOFT = "soft"


class Spare(StrEnum):
    """How badly its pools need a relay. PLENTY: they keep their floor without it. FLOOR: it is one
    of the last; it is not taken out for a soft fault, and after a hard one tried again soon."""

    PLENTY = "plenty"
    FLOOR = "floor"


def fault_of(refusal: Deferred) -> Fault | None:
    """What a deferral says against the relay; None: nothing."""
    if not refusal.relay_fault or refusal.speaker is Speaker.DESTINATION:
        return None
    if refusal.speaker is Speaker.SELF:  # our own lack, or a setting: another process may do better
        return Fault.SOFT
    if refusal.phase in _SESSION or refusal.rule in _CLOSED_TO_US:
        return Fault.HARD
    if refusal.phase is Phase.MAIL and (refusal.reply is None or refusal.reply.code == 421):
        return Fault.HARD
    return Fault.SOFT


def why_of(refusal: Deferred) -> str:
    """The refusal in a few words, for people."""
    said = refusal.reply
    return refusal.reason if said is None else f"{said}".partition("\n")[0][:200]


class Circuit:
    """One relay's. What changes it returns True. `probed`: something else than mail finds out
    whether the relay is back; `open_for`: seconds of the first opening. `began`, of a transaction:
    what was under way when the circuit last changed tells nothing new."""

    __slots__ = (
        "_at_once", "_back_since", "_buckets", "_hard", "_open_for", "_over", "_parties",
        "_patience", "_proved", "_round",
        "_slot", "_soft", "_spoken_for", "_worked_at", "ejections", "phase", "since", "speaker",
        "state", "until", "why",
    )  # fmt: skip

    def __init__(
        self, *, probed: bool = False, open_for: float = OPEN_FOR, now: float = 0.0
    ) -> None:
        self._open_for = open_for
        self._patience = 0.0
        self.expect_probes(probed)
        self.state = CircuitState.CLOSED
        self.why = ""
        self.phase: str | None = None
        self.speaker: str | None = None
        self.since = now
        self.until: float | None = None
        self.ejections = 0
        self._back_since: float | None = None  # when the slow start began
        self._at_once = 1  # what it has earned since …
        self._round = 0  # … and how many worked since it earned the last
        self._over = 0.0  # the part of the slow start that is over, when last asked
        self._spoken_for = False  # a good probe since it was opened
        self._worked_at: float | None = None  # since it was last open
        self._hard = self._soft = 0  # in a row
        self._proved = 0  # that another relay took, in this row
        self._parties: set[str] = set()  # whom the soft ones in a row concerned
        self._slot = 0
        self._buckets: list[_Bucket] = [_Bucket() for _ in range(_BUCKETS)]

    def expect_probes(self, probed: bool) -> None:
        self._patience = PATIENCE * self._open_for if probed else 0.0

    # --- what it is worth -------------------------------------------------------------------------

    def share(self, now: float) -> float:
        """The part of its weight that it may carry."""
        if self.state is not CircuitState.CLOSED:
            return 0.0
        if self._back_since is None:
            return 1.0
        share = (now - self._back_since) / SLOW_START
        if share >= 1.0:
            self._back_since = None
            return 1.0
        self._over = share
        return max(share, FIRST_SHARE)

    def places(self, most: int) -> int:
        """Transactions that it may have at once, of `most`. During the slow start one more for each
        round of them that worked; and as time goes by, lest a few that hang keep the others back.
        """
        if self._back_since is None:
            return most
        return min(most, max(self._at_once, 1 + int(most * self._over)))

    @property
    def doubtful(self) -> bool:
        """Whether the last transaction failed."""
        return self._hard > 0 or self._soft > 0

    @property
    def ramping(self) -> bool:
        return self._back_since is not None

    @property
    def next_look(self) -> float | None:
        """When an open circuit lets a message try; None: it is not open."""
        if self.until is None:
            return None
        if self._spoken_for or not self._patience:
            return self.until
        return self.until + self._patience + PATIENCE_PART * (self.until - self.since)

    # --- evidence ---------------------------------------------------------------------------------

    def worked(self, *, began: float, now: float) -> bool:
        """The relay did its work for a message."""
        if began < self.since or self.state is CircuitState.OPEN:
            return False
        self._bucket(now).worked += 1
        self._worked_at = now
        if self._hard or self._soft:
            self._forget_row()
        if self.state is CircuitState.HALF_OPEN:
            self._close(now)
            return True
        if self._back_since is not None:
            self._round += 1
            if self._round >= self._at_once:
                self._at_once, self._round = self._at_once + 1, 0
        return False

    def failed(
        self,
        refusal: Deferred,
        fault: Fault,
        *,
        party: str | None,
        spare: Spare,
        began: float,
        now: float,
    ) -> bool:
        """The relay failed a message. `party`: who else than the relay may be to blame for it;
        None: nobody."""
        if began < self.since or self.state is CircuitState.OPEN:
            return False
        bucket = self._bucket(now)
        bucket.failed += 1
        if fault is Fault.HARD:
            alone = self._worked_at is None or self._worked_at < began
            self._hard += HARD_IN_A_ROW if alone and now - began >= LONG else 1
        else:
            self._soft += 1
        if party is None:
            self._proved += 1
        elif len(self._parties) < _PARTIES_KEPT:
            self._parties.add(party)
            bucket.parties.add(party)
        if not self._is_enough(fault, spare, now):
            return False
        self._open(refusal, spare, now)
        return True

    def disproved(self, refusal: Deferred, *, spare: Spare, now: float) -> bool:
        """Another relay took the message that this one had refused: it was not the message."""
        if self.state is CircuitState.OPEN or not self._soft:
            return False
        self._proved += 1
        if not self._is_enough(Fault.SOFT, spare, now):
            return False
        self._open(refusal, spare, now)
        return True

    def takes_out(self, why: Deferred, *, now: float) -> bool:
        """It is no good beside its like, who keep their pools' floor without it."""
        if self.state is not CircuitState.CLOSED:
            return False
        self._open(why, Spare.PLENTY, now)
        return True

    def probed(self, refusal: Deferred | None, *, spare: Spare, now: float) -> bool:
        """What a probe found. A good one brings an open circuit's return near, though never before
        its time; that mail works it does not prove (F61). A bad one is a hard fault; but one
        that had a session, and was refused only as a message would be, may be the probe's own: the
        last ones of a pool are given to mail to find out."""
        fault = None if refusal is None else fault_of(refusal)
        if refusal is None or fault is None or (fault is Fault.SOFT and spare is Spare.FLOOR):
            if self.state is not CircuitState.OPEN:
                return False
            self._spoken_for = True
            return self.look(now)
        if self.state is not CircuitState.OPEN:
            return self.failed(refusal, Fault.HARD, party=None, spare=spare, began=now, now=now)
        self._spoken_for = False
        self._blame(refusal)
        assert self.until is not None
        self.until = max(self.until, now + self._open_for)
        return True

    def look(self, now: float) -> bool:
        """Whether an open circuit's time is over: then it is half open."""
        due = self.next_look
        if due is None or now < due:
            return False
        self._become(CircuitState.HALF_OPEN, now)
        return True

    # --- between processes ------------------------------------------------------------------------

    def health(self, relay: bytes, *, now: float, wall: int) -> Health:
        """The circuit as others may read it; `wall` is `now` in milliseconds since 1970."""

        def told(moment: float) -> int:
            return wall - round((now - moment) * 1000)

        return Health(
            relay=relay,
            state=self.state,
            why=self.why,
            phase=self.phase,
            speaker=self.speaker,
            since=told(self.since),
            until=None if self.until is None else told(self.until),
            ejections=self.ejections,
        )

    def learn(self, known: Health, *, now: float, wall: int) -> bool:
        """What another process found out. The later word counts; of an open circuit the later
        return. A clock that was set back since then makes nothing later than it can be (I22)."""
        since = min(now + (known.since - wall) / 1000, now)
        until = None
        if known.until is not None:
            longest = self._open_for * 2**DOUBLINGS
            until = min(now + (known.until - wall) / 1000, now + longest)
        if self.state is known.state:
            self.ejections = max(self.ejections, known.ejections)
            if self.until is None or until is None or until <= self.until:
                return False
            self.until = until
            self._spoken_for = False
            self.why = known.why
            return True
        if since <= self.since or (known.state is CircuitState.OPEN and until is None):
            return False
        self.why, self.phase, self.speaker = known.why, known.phase, known.speaker
        self.ejections = max(self.ejections, known.ejections)
        if known.state is CircuitState.CLOSED:
            self._close(since)
        else:
            self._become(known.state, since)
            self.until = until if known.state is CircuitState.OPEN else None
        return True

    # --- inside -----------------------------------------------------------------------------------

    def _is_enough(self, fault: Fault, spare: Spare, now: float) -> bool:
        if fault is Fault.HARD:
            # Nothing works yet in a circuit that is half open.
            sure = self._worked_at is None or self.share(now) < 1.0
            if self._hard >= (1 if sure else HARD_IN_A_ROW):
                return True
        if spare is Spare.FLOOR:
            return False
        if self.state is CircuitState.HALF_OPEN:
            return self._soft >= TRIALS
        if self._proved >= PROVED_IN_A_ROW:
            return True
        if self._soft >= SOFT_IN_A_ROW and (len(self._parties) > 1 or self._proved):
            return True
        return self._rate_is_poor(now)

    def _rate_is_poor(self, now: float) -> bool:
        self._bucket(now)
        failed = sum(b.failed for b in self._buckets)
        tried = failed + sum(b.worked for b in self._buckets)
        if tried < WINDOW_MINIMUM or failed < WINDOW_RATE * tried:
            return False
        return len(set[str]().union(*(b.parties for b in self._buckets))) >= WINDOW_PARTIES

    def _bucket(self, now: float) -> "_Bucket":
        slot = int(now / _BUCKET)
        if slot != self._slot:
            for stale in range(max(self._slot + 1, slot - _BUCKETS + 1), slot + 1):
                self._buckets[stale % _BUCKETS] = _Bucket()
            self._slot = slot
        return self._buckets[slot % _BUCKETS]

    def _open(self, refusal: Deferred, spare: Spare, now: float) -> None:
        if self.state is CircuitState.CLOSED:
            healthy = now - self.since
            self.ejections = max(self.ejections - int(healthy / FORGIVEN_AFTER), 0)
        self.ejections += 1
        self._blame(refusal)
        self._become(CircuitState.OPEN, now)
        doublings = 0 if spare is Spare.FLOOR else min(self.ejections - 1, DOUBLINGS)
        self.until = now + self._open_for * 2**doublings

    def _close(self, now: float) -> None:
        self._become(CircuitState.CLOSED, now)
        self._worked_at = now
        self._back_since = now
        self._at_once, self._round, self._over = 1, 0, 0.0
        self.why, self.phase, self.speaker = "", None, None

    def _become(self, state: CircuitState, now: float) -> None:
        self.state = state
        self.since = now
        self.until = None
        self._spoken_for = False
        self._worked_at = None
        self._back_since = None
        self._forget_row()
        self._buckets = [_Bucket() for _ in range(_BUCKETS)]

    def _forget_row(self) -> None:
        self._hard = self._soft = 0
        self._proved = 0
        self._parties.clear()

    def _blame(self, refusal: Deferred) -> None:
        self.why = why_of(refusal)
        self.phase = refusal.phase.value
        self.speaker = refusal.speaker.value


class _Bucket:
    __slots__ = ("failed", "parties", "worked")

    def __init__(self) -> None:
        self.worked = 0
        self.failed = 0
        self.parties: set[str] = set()
