"""Each answer, in each place, means the right thing: above all, a relay's own refusal never bounces
a recipient (F55-F58), and only what is known of an address marks it."""

import re
import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from everpost.delivery import classify as table
from everpost.delivery.classify import RULES, Kind, Means, Rule, Table, classify, rule
from everpost.delivery.handover import MAX_TEXT
from everpost.model.outcome import Bounced, Deferred, Delivered, Outcome, Phase, Reply, Speaker, Via
from everpost.protocol.smtp.replies import ReplyParser

RELAY, DESTINATION = Speaker.RELAY, Speaker.DESTINATION


def reply(line: str) -> Reply:
    (parsed,) = ReplyParser().feed(line.replace("\n", "\r\n").encode() + b"\r\n")
    return Reply(parsed.code, parsed.text, parsed.enhanced)


# Said by the relay about itself or about us: deferred, another relay may be tried.
RELAY_SPEAKS = [
    # 421 anywhere
    (Phase.GREET, "421 4.3.2 too busy"),
    (Phase.MAIL, "421 4.7.0 too many connections"),
    (Phase.RCPT, "421 4.4.2 timeout"),
    (Phase.DATA, "421 shutting down"),
    (Phase.DOT, "421 4.3.0 shutting down"),
    # before a recipient was named
    (Phase.GREET, "554 5.7.1 you are on a list"),
    (Phase.GREET, "521 this host does not accept mail"),
    (Phase.GREET, "450 come back"),
    (Phase.GREET, "550 5.1.1 no such user"),
    (Phase.SECURE, "454 4.7.0 TLS not available"),
    (Phase.SECURE, "501 5.5.4 syntax"),
    (Phase.LOGIN, "535 5.7.8 authentication failed"),
    (Phase.LOGIN, "454 4.7.0 temporary authentication failure"),
    (Phase.LOGIN, "534 5.7.9 mechanism too weak"),
    (Phase.LOGIN, "538 5.7.11 encryption required"),
    (Phase.LOGIN, "550 5.2.1 mailbox disabled"),
    (Phase.LOGIN, "235 odd"),
    # MAIL: our sender, quota, login
    (Phase.MAIL, "530 5.7.0 authentication required"),
    (Phase.MAIL, "550 5.7.1 sender not allowed"),
    (Phase.MAIL, "553 5.7.1 not owned by user"),
    (Phase.MAIL, "550 5.1.8 domain not found"),
    (Phase.MAIL, "552 5.2.2 quota"),
    (Phase.MAIL, "452 4.3.1 insufficient system storage"),
    (Phase.MAIL, "452 4.2.2 over quota"),
    (Phase.MAIL, "555 5.5.4 unsupported option"),
    (Phase.MAIL, "550 5.1.1 no such user"),
    (Phase.MAIL, "454 Throttling failure: Maximum sending rate exceeded."),
    # RCPT and later: login, relaying, sender, quota, reputation
    (Phase.RCPT, "530 5.7.0 Must issue a STARTTLS command first"),
    (Phase.RCPT, "535 5.7.8 not logged in"),
    (Phase.RCPT, "550 5.7.8 authenticate"),
    (Phase.RCPT, "550 5.7.0 security"),
    (Phase.RCPT, "554 5.7.1 <u@d.test>: Relay access denied"),
    (Phase.RCPT, "454 4.7.1 <u@d.test>: Relay access denied"),
    (Phase.RCPT, "550 relay not permitted"),
    (Phase.RCPT, "550 5.7.1 Unable to relay"),
    (Phase.RCPT, "550 5.7.1 Relaying denied. Proper authentication required."),
    (Phase.RCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
    (Phase.RCPT, "550 5.7.1 <a@b.test>: Sender address rejected: not owned by user jo"),
    (Phase.RCPT, "450 4.1.8 <a@b.test>: Sender address rejected: Domain not found"),
    (Phase.RCPT, "550 5.1.8 <a@b.test>: Domain not found"),
    (Phase.RCPT, "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.test"),
    (Phase.RCPT, "450 4.7.1 Client host rejected: cannot find your hostname"),
    (Phase.RCPT, "550 5.4.5 Daily user sending limit exceeded"),
    (Phase.RCPT, "550 5.4.5 limit reached"),
    (Phase.RCPT, "550 Daily message quota exceeded"),
    (Phase.RCPT, "451 4.7.0 rate limited"),
    (Phase.RCPT, "553 Mail from must equal authorized user"),
    (Phase.RCPT, "550 Ip frequency limited"),
    (Phase.RCPT, "503 5.5.1 need MAIL first"),
    (Phase.RCPT, "500 what"),
    (Phase.RCPT, "555 5.5.4 unsupported"),
    (Phase.RCPT, "451 4.3.5 server configuration error"),
    (Phase.RCPT, "554 5.3.2 shutting down"),
    (Phase.DATA, "503 5.5.1 valid RCPT required"),
    (Phase.DATA, "501 5.5.4 no arguments"),
    (Phase.DATA, "250 odd"),
    (Phase.DOT, "451 4.3.0 queue file write error"),
    (Phase.DOT, "452 4.3.1 insufficient system storage"),
    (Phase.DOT, "554 Message rejected: Email address is not verified."),
    (Phase.DOT, "550 The from address does not match a verified Sender Identity."),
    (Phase.DOT, "554 5.7.1 Sending paused for this account; sending is suspended"),
    (Phase.DOT, "451 Authentication failed: Maximum credits exceeded"),
    (Phase.DOT, "552 5.7.0 policy"),
    (Phase.BODY, "554 5.7.1 Daily sending limit exceeded"),
    # hosted smart hosts of the account that submits
    (Phase.DOT, "550 5.1.90 Your message can't be sent because you've reached your daily limit"),
    (Phase.RCPT, "550 5.1.90 reached your daily limit for message recipients"),
    (Phase.DOT, "554 5.2.252 SendAsDenied; jo@x.test not allowed to send as me@s.test"),
    (Phase.DOT, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"),
    (Phase.DOT, "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiException"),
    (Phase.DOT, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
    (Phase.RCPT, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"),
    (Phase.RCPT, "550 5.7.64 TenantAttribution; Relay Access Denied"),
    (Phase.DOT, "550 5.7.501 Access denied, spam abuse detected"),
    (Phase.DOT, "550 5.7.705 Access denied, tenant has exceeded threshold"),
    (Phase.RCPT, "550 5.7.708 Service unavailable. Access denied, traffic not accepted"),
    (Phase.RCPT, "553 5.1.0 <me@s.test>: Sender address rejected: not owned by user jo"),
    (Phase.RCPT, "554 5.7.1 <me@s.test>: not allowed to send: recipient limit exceeded"),
    (Phase.DOT, "554 5.7.1 jo is not allowed to send: recipient limit exceeded"),
    (Phase.RCPT, "550 5.7.1 Account disabled"),
    (Phase.DOT, "554 5.7.1 The account has been temporarily suspended"),
    (Phase.DOT, "554 5.7.1 jo@s.test: account suspended"),
]

# Temporary, and the destination's: the same relay is as good as another.
DESTINATION_NOT_READY = [
    (Phase.RCPT, "450 4.2.0 greylisted"),
    (Phase.RCPT, "451 4.7.1 greylisting in action"),
    (Phase.RCPT, "452 4.2.2 mailbox full"),
    (Phase.RCPT, "452 4.5.3 too many recipients"),
    (Phase.RCPT, "552 5.5.3 too many recipients"),
    (Phase.RCPT, "552 too many recipients"),
    (Phase.RCPT, "450 mailbox busy"),
    (Phase.RCPT, "550 4.4.1 contradictory"),
    (Phase.RCPT, "450 5.1.1 contradictory"),
    (Phase.DOT, "451 4.7.1 try later"),
    (Phase.DOT, "552 no room"),
    (Phase.DOT, "450 unhappy"),
]

# For good.
DESTINATION_REFUSED = [
    (Phase.RCPT, "550 5.1.1 user unknown"),
    (Phase.RCPT, "550 5.1.1 <u@d.test>: Recipient address rejected: not authorized here"),
    (Phase.RCPT, "550 5.1.10 null MX"),
    (Phase.RCPT, "550 5.2.1 The email account that you tried to reach is disabled"),
    (Phase.RCPT, "552 5.2.2 mailbox full: quota exceeded"),
    (Phase.RCPT, "550 mailbox unavailable"),
    (Phase.RCPT, "550 5.5.0 Requested action not taken: mailbox unavailable"),
    (Phase.RCPT, "553 5.3.0 no such user here"),
    (Phase.RCPT, "551 user not local"),
    (Phase.RCPT, "501 5.1.3 bad address syntax"),
    (Phase.RCPT, "501 syntax error in address"),
    (Phase.RCPT, "556 5.1.10 does not accept mail"),
    (Phase.RCPT, "550 5.4.1 Recipient address rejected: Access denied"),
    (Phase.RCPT, "554 5.7.1 <u@d.test>: Recipient address rejected: Access denied"),
    (Phase.DATA, "554 no thanks"),
    (Phase.DOT, "554 5.7.1 Spam message rejected"),
    (Phase.DOT, "550 5.7.26 This mail is unauthenticated; it requires authentication by SPF"),
    (Phase.DOT, "550 5.6.0 malformed"),
    (Phase.DOT, "552 5.7.0 blocked because its content presents a potential security issue"),
    (Phase.DOT, "550 5.1.1 unknown"),
    (Phase.DOT, "571 delivery not wanted"),
    (Phase.RCPT, "550 5.2.0 STOREDRV.Deliver; mailbox disabled"),
    (Phase.RCPT, "550 5.1.0 Address rejected"),
    (Phase.RCPT, "550 5.7.1 Recipient account disabled"),
    (Phase.RCPT, "550 5.7.1 You are not allowed to send to this group"),
    (Phase.DOT, "550 5.7.15 unauthenticated"),
    (Phase.DOT, "550 5.7.29 authentication failed"),
    (Phase.DOT, "550 5.7.509 Access denied, sending domain s.test does not pass DMARC"),
]


def plain(outcome: Bounced) -> Bounced:
    """Without what the table adds for people."""
    return msgspec.structs.replace(outcome, hard=False, rule=None)


@pytest.mark.parametrize(("phase", "line"), RELAY_SPEAKS)
def test_a_relays_own_refusal_never_bounces_a_recipient(phase: Phase, line: str) -> None:
    outcome = classify(reply(line), phase)
    assert isinstance(outcome, Deferred)
    assert (outcome.speaker, outcome.relay_fault) == (RELAY, True)
    assert outcome.phase is phase
    assert outcome.reply == reply(line)


@pytest.mark.parametrize(("phase", "line"), DESTINATION_NOT_READY)
def test_a_destination_that_is_not_ready_is_tried_again(phase: Phase, line: str) -> None:
    outcome = classify(reply(line), phase)
    assert isinstance(outcome, Deferred)
    assert (outcome.speaker, outcome.relay_fault) == (DESTINATION, False)


@pytest.mark.parametrize(("phase", "line"), DESTINATION_REFUSED)
def test_a_destination_that_refuses_for_good_is_not_tried_for_days(phase: Phase, line: str) -> None:
    outcome = classify(reply(line), phase)
    assert isinstance(outcome, Bounced)
    assert plain(outcome) == Bounced(reply(line), phase, DESTINATION)


@pytest.mark.parametrize(
    ("phase", "line"),
    [
        (Phase.MAIL, "552 5.3.4 Message size exceeds fixed limit"),
        (Phase.DOT, "552 5.3.4 Message too big"),
        (Phase.DOT, "552 Message size exceeds maximum permitted"),
        (Phase.DOT, "552 message size limit exceeded"),
        (Phase.BODY, "552 5.3.4 Message too big"),
    ],
)
def test_too_large_a_message_does_not_mark_the_address(phase: Phase, line: str) -> None:
    outcome = classify(reply(line), phase)
    assert isinstance(outcome, Bounced)
    assert plain(outcome) == Bounced(reply(line), phase, RELAY)
    assert not outcome.hard


@pytest.mark.parametrize("code", [200, 250, 251])
def test_any_positive_answer_to_the_dot_is_a_delivery(code: int) -> None:
    assert classify(Reply(code, "ok"), Phase.DOT) == Delivered(Reply(code, "ok"))


@given(
    st.integers(200, 599),
    st.sampled_from(list(Phase)),
    st.none() | st.from_regex(r"[245]\.[0-9]{1,2}\.[0-9]{1,2}", fullmatch=True),
    st.text(max_size=40),
)
def test_whatever_is_answered_something_is_decided(
    code: int, phase: Phase, enhanced: str | None, text: str
) -> None:
    outcome = classify(Reply(code, text, enhanced), phase)
    if isinstance(outcome, Bounced):
        assert code >= 500
        assert phase in {Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.DOT}
        assert phase is not Phase.MAIL or enhanced == "5.3.4"
    if isinstance(outcome, Delivered):
        assert phase is Phase.DOT


# --- the table itself -----------------------------------------------------------------------------


def vias(row: Rule) -> list[Via]:
    return [Via(row.via)] if row.via != "any" else [Via.RELAY, Via.MX]


CASES = [
    pytest.param(row, via, example.at, example.says, id=f"{row.id}-{via}-{n}")
    for row in RULES
    for via in vias(row)
    for n, example in enumerate(row.examples)
]
NEAR_MISSES = [
    pytest.param(row, via, near.at, near.says, id=f"{row.id}-{via}-{n}")
    for row in RULES
    for via in vias(row)
    for n, near in enumerate(row.others)
]


@pytest.mark.parametrize(("row", "via", "phase", "line"), CASES)
def test_a_row_that_another_row_shadows(row: Rule, via: Via, phase: Phase, line: str) -> None:
    assert rule(reply(line), phase, via=via) is row
    outcome = classify(reply(line), phase, via=via, alone=True)
    assert not isinstance(outcome, Delivered)
    assert (outcome.rule, outcome.phase, outcome.reply) == (row.id, phase, reply(line))
    if isinstance(outcome, Bounced):
        assert (row.means, outcome.kind) == (Means.BOUNCED, row.kind)
    else:
        assert row.means is not Means.BOUNCED
        assert outcome.reason == row.reason
        assert outcome.throttle is (row.means is Means.THROTTLE)
        assert outcome.relay_fault is (outcome.speaker is RELAY)


@pytest.mark.parametrize(("row", "via", "phase", "line"), NEAR_MISSES)
def test_a_row_that_takes_what_is_not_its_own(row: Rule, via: Via, phase: Phase, line: str) -> None:
    assert rule(reply(line), phase, via=via) is not row


def without(row: Rule) -> Callable[[Reply, Phase, Via], Rule]:
    """The table as it decides without this row."""
    rest = msgspec.structs.replace(table.TABLE, rows=tuple(r for r in RULES if r is not row))
    matchers = table._matchers(rest)

    def decide(answer: Reply, phase: Phase, via: Via) -> Rule:
        folded = " ".join(answer.text.lower().split())
        status = answer.enhanced or "-"
        return next(
            m.rule for m in matchers[via, phase] if m.fits(str(answer.code), status, folded)
        )

    return decide


@pytest.mark.parametrize("row", RULES[:-1], ids=lambda row: row.id)
def test_a_row_that_could_go_and_nobody_would_see_it(row: Rule) -> None:
    decide = without(row)
    seen = [
        (other.means, other.kind, other.speaks(via), other.reason)
        for via in vias(row)
        for case in row.examples
        for other in [decide(reply(case.says), case.at, via)]
    ]
    mine = [
        (row.means, row.kind, row.speaks(via), row.reason)
        for via in vias(row)
        for _ in row.examples
    ]
    assert any(a != b for a, b in zip(seen, mine, strict=True))


def test_a_phrase_that_no_known_answer_has() -> None:
    lines = [case.says for row in RULES for case in (*row.examples, *row.others)]
    lines += [line for _, line in RELAY_SPEAKS + DESTINATION_NOT_READY + DESTINATION_REFUSED]
    texts = [" ".join(reply(line).text.lower().split()) for line in lines]
    phrases = {phrase for row in RULES for phrase in table.TABLE.spoken(row)}
    assert [p for p in sorted(phrases) if not any(re.search(p, text) for text in texts)] == []
    used = {phrase[1:] for row in RULES for phrase in row.text if phrase.startswith("$")}
    assert used == set(table.PHRASES)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("means", "perhaps", "perhaps"),
        ("kind", None, "goes with bounces"),
        ("speaker", "self", "never speak"),
        ("id", "Not A Name", "matching regex"),
        ("examples", [], "length"),
        ("colour", "red", "unknown field"),
        ("date", "once", "date"),
    ],
)
def test_a_row_that_is_not_understood_stops_the_start(
    field: str, value: object, complaint: str
) -> None:
    row = msgspec.to_builtins(RULES[-2])
    assert row["kind"] == "soft"
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert({**row, field: value}, Rule)


def test_a_relays_deferral_that_calls_itself_the_destinations_stops_the_start() -> None:
    row = msgspec.to_builtins(RULES[-1])
    assert row["means"] == "relay-fault"
    with pytest.raises(msgspec.ValidationError, match="relay's deferral"):
        msgspec.convert({**row, "means": "deferred"}, Rule)


@pytest.mark.parametrize("phrase", ["a+b", "(x|y)*", "n{3,}", "Upper", ".*"])
def test_a_pattern_without_end_stops_the_start(phrase: str) -> None:
    row = msgspec.structs.replace(RULES[-1], text=(phrase,))
    with pytest.raises(ValueError, match="no end to it"):
        table._matchers(msgspec.structs.replace(table.TABLE, rows=(row,)))


def test_two_rows_of_one_name_stop_the_start() -> None:
    whole = msgspec.to_builtins(table.TABLE)
    whole["rows"] += whole["rows"][:1]
    with pytest.raises(msgspec.ValidationError, match="come twice"):
        msgspec.convert(whole, Table)


# --- a destination's own host ---------------------------------------------------------------------

MX = Via.MX
GOOD_FOR_NOTHING = [
    (Phase.RCPT, "550 5.1.1 user unknown"),
    (Phase.RCPT, "553 5.1.2 no such domain"),
    (Phase.RCPT, "501 5.1.3 bad address syntax"),
    (Phase.RCPT, "550 5.1.6 moved"),
    (Phase.RCPT, "556 5.1.10 does not accept mail"),
    (Phase.RCPT, "550 5.2.1 disabled"),
    (Phase.RCPT, "550 User unknown"),
    (Phase.RCPT, "550 <u@d.test>: Recipient address rejected: User unknown in local table"),
]
THIS_MESSAGE_ONLY = [
    (Phase.MAIL, "550 5.7.1 Client host [192.0.2.1] blocked using zen.test"),
    (Phase.MAIL, "550 nothing that we know"),
    (Phase.RCPT, "550 5.1.0 <a@b.test>: Sender address rejected: User unknown"),
    (Phase.RCPT, "552 5.2.2 mailbox full"),
    (Phase.RCPT, "550 mailbox unavailable"),
    (Phase.RCPT, "554 5.7.1 Relay access denied"),
    (Phase.DATA, "554 no thanks"),
    (Phase.DOT, "550 5.7.25 no PTR"),
    (Phase.DOT, "550 5.7.26 unauthenticated"),
    (Phase.DOT, "550 5.7.27 null MX of the sender"),
    (Phase.DOT, "552 5.3.4 too big"),
    (Phase.DOT, "554 5.7.1 spam"),
    (Phase.DOT, "554 5.6.0 malformed"),
]
LATER = [
    (Phase.GREET, "554 5.7.1 you are on a list"),
    (Phase.GREET, "521 no mail here"),
    (Phase.SECURE, "550 5.1.1 no such user"),
    (Phase.MAIL, "530 5.7.0 Must issue a STARTTLS command first"),
    (Phase.MAIL, "421 4.3.2 too busy"),
    (Phase.MAIL, "450 4.1.8 Domain not found"),
    (Phase.RCPT, "450 4.2.0 Greylisted"),
    (Phase.RCPT, "451 4.7.1 try again later"),
    (Phase.RCPT, "452 4.3.1 no room"),
    (Phase.RCPT, "503 what"),
    (Phase.DOT, "550 4.4.1 contradictory"),
    (Phase.DOT, "354 odd"),
]
LESS = [
    (Phase.GREET, "421 4.7.0 too many connections"),
    (Phase.GREET, "554 too many connections"),
    (Phase.MAIL, "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited"),
    (Phase.RCPT, "450 4.2.1 The user you are trying to contact is receiving mail too quickly"),
    (Phase.RCPT, "550 Ip frequency limited"),
    (Phase.DOT, "421 4.7.28 unusual rate of mail"),
    (Phase.DOT, "550 5.7.1 This email has been rate limited."),
]


@pytest.mark.parametrize(("phase", "line"), GOOD_FOR_NOTHING)
@pytest.mark.parametrize("via", [Via.RELAY, Via.MX])
def test_an_address_that_is_good_for_nothing_is_marked(phase: Phase, line: str, via: Via) -> None:
    outcome = classify(reply(line), phase, via=via)
    assert isinstance(outcome, Bounced)
    assert (outcome.speaker, outcome.hard) == (DESTINATION, True)


@pytest.mark.parametrize(("phase", "line"), THIS_MESSAGE_ONLY)
def test_a_refused_message_does_not_mark_the_address(phase: Phase, line: str) -> None:
    outcome = classify(reply(line), phase, via=MX, alone=True)
    assert isinstance(outcome, Bounced)
    assert (outcome.speaker, outcome.hard) == (DESTINATION, False)


@pytest.mark.parametrize(("phase", "line"), LATER)
def test_a_destination_that_may_take_it_later_is_tried_later(phase: Phase, line: str) -> None:
    outcome = classify(reply(line), phase, via=MX)
    assert isinstance(outcome, Deferred)
    assert (outcome.speaker, outcome.relay_fault, outcome.throttle) == (DESTINATION, False, False)


@pytest.mark.parametrize(("phase", "line"), LESS)
def test_a_destination_that_wants_less_is_heard(phase: Phase, line: str) -> None:
    """F67."""
    outcome = classify(reply(line), phase, via=MX)
    assert isinstance(outcome, Deferred)
    assert (outcome.speaker, outcome.relay_fault, outcome.throttle) == (DESTINATION, False, True)


@pytest.mark.parametrize(
    ("phase", "line"),
    [
        (Phase.MAIL, "454 Throttling failure: Maximum sending rate exceeded."),
        (Phase.RCPT, "550 Daily message quota exceeded"),
        (Phase.MAIL, "421 4.7.0 too many connections"),
        (Phase.RCPT, "550 5.4.5 limit reached"),
        (Phase.DOT, "550 5.1.90 you've reached your daily limit"),
    ],
)
def test_a_relay_that_wants_less_is_heard_and_another_tried(phase: Phase, line: str) -> None:
    outcome = classify(reply(line), phase)
    assert isinstance(outcome, Deferred)
    assert (outcome.speaker, outcome.relay_fault, outcome.throttle) == (RELAY, True, True)


@pytest.mark.parametrize("via", [Via.RELAY, Via.MX])
def test_an_answer_that_several_share_marks_nobody(via: Via) -> None:
    answer = reply("550 5.1.1 unknown")
    shared = classify(answer, Phase.DOT, via=via)
    own = classify(answer, Phase.DOT, via=via, alone=True)
    assert isinstance(shared, Bounced)
    assert isinstance(own, Bounced)
    assert (shared.hard, own.hard) == (False, True)


def test_a_bounce_that_an_older_version_wrote() -> None:
    old = b'{"type":"bounced","reply":{"code":550,"text":"no"},"phase":"rcpt"}'
    outcome = msgspec.json.decode(old, type=Outcome)
    assert outcome == Bounced(Reply(550, "no"), Phase.RCPT)


# --- whatever comes -------------------------------------------------------------------------------

_ADDRESS_CODES = {"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}
_WORDS = sorted({p for row in RULES for p in table.TABLE.spoken(row)})
answers = st.builds(
    Reply,
    st.integers(200, 599),
    st.text(max_size=40) | st.lists(st.sampled_from(_WORDS), max_size=4).map(" ".join),
    st.none() | st.from_regex(r"[245]\.[0-9]{1,2}\.[0-9]{1,3}", fullmatch=True),
)


@given(answers, st.sampled_from(list(Phase)), st.sampled_from(list(Via)), st.booleans())
def test_no_answer_breaks_what_always_holds(
    answer: Reply, phase: Phase, via: Via, alone: bool
) -> None:
    outcome = classify(answer, phase, via=via, alone=alone)
    if isinstance(outcome, Delivered):
        assert phase is Phase.DOT
        assert 200 <= answer.code < 300
    elif isinstance(outcome, Bounced):
        assert answer.code >= 500
        assert phase in {Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.DOT}
        assert via is not Via.RELAY or phase is not Phase.MAIL or answer.enhanced == "5.3.4"
        assert not (outcome.hard and outcome.speaker is RELAY)
        if outcome.hard:
            row = rule(answer, phase, via=via)
            assert row.kind is Kind.HARD
            assert answer.enhanced in _ADDRESS_CODES or row.text
            assert alone or phase is Phase.RCPT
    else:
        assert outcome.relay_fault is (outcome.speaker is RELAY)
        assert via is Via.RELAY or not outcome.relay_fault


def _cost(text: str, phase: Phase, via: Via) -> float:
    """CPU seconds to decide about a text with three codes, each the best of five."""
    total = 0.0
    for code in (354, 450, 550):
        best = 1e9
        for _ in range(5):
            table._first.cache_clear()
            begun = time.process_time()
            classify(Reply(code, text), phase, via=via)
            best = min(best, time.process_time() - begun)
        total += best
    return total


@pytest.mark.parametrize("via", [Via.RELAY, Via.MX])
@pytest.mark.parametrize(
    "unit",
    [
        "a", " ", "message ", "size too ", "daily aaaaaaaaaaaaaaaaaaaaa ", "account is aly ",
        "user aaaa ", "recipient address ", "domain ", "delivery error: dd ", "mailbox is ",
        "behaviour spam ", "sender address rejected", "<a", "account aaaaaaaaaly ",
        "try again in 1",
    ],
)  # fmt: skip
def test_a_hostile_answer_costs_linear_time(unit: str, via: Via) -> None:
    """F58: twice the text, about twice the work."""
    short = (unit * MAX_TEXT)[: MAX_TEXT * 4]
    long = (unit * MAX_TEXT * 2)[: MAX_TEXT * 8]
    assert _cost(long, Phase.DOT, via) < 4 * _cost(short, Phase.DOT, via) + 0.002


@given(st.text(max_size=2 * MAX_TEXT), st.sampled_from(list(Phase)), st.sampled_from(list(Via)))
@example("\n" * MAX_TEXT, Phase.DOT, Via.MX)
@example("ſ\u2028\x00" * 600, Phase.RCPT, Via.MX)
def test_any_text_gives_a_value(text: str, phase: Phase, via: Via) -> None:
    for code in (199, 250, 354, 421, 450, 550, 599, 999):
        outcome = classify(Reply(code, text), phase, via=via)
        assert outcome.reply.text == text if outcome.reply is not None else False
