"""Each answer, in each place, means the right thing: above all, a relay's own refusal never bounces
a recipient (F55-F58)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.delivery.classify import RULES, classify
from everpost.model.outcome import Bounced, Deferred, Delivered, Phase, Reply, Speaker
from everpost.protocol.smtp.replies import ReplyParser

RELAY, DESTINATION = Speaker.RELAY, Speaker.DESTINATION


def reply(line: str) -> Reply:
    (parsed,) = ReplyParser().feed(line.encode() + b"\r\n")
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
    assert classify(reply(line), phase) == Bounced(reply(line), phase, DESTINATION)


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
    assert classify(reply(line), phase) == Bounced(reply(line), phase, RELAY)


@pytest.mark.parametrize("code", [200, 250, 251])
def test_any_positive_answer_to_the_dot_is_a_delivery(code: int) -> None:
    assert classify(Reply(code, "ok"), Phase.DOT) == Delivered(Reply(code, "ok"))


def test_every_rule_decides_something() -> None:
    lines = RELAY_SPEAKS + DESTINATION_NOT_READY + DESTINATION_REFUSED
    lines += [
        (Phase.MAIL, "552 5.3.4 Message size exceeds fixed limit"),
        (Phase.DOT, "552 Message size exceeds maximum permitted"),
    ]
    used = {next(r for r in RULES if r.fits(reply(line), phase)) for phase, line in lines}
    assert [rule for rule in RULES if rule not in used] == []


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
