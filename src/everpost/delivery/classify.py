"""From a relay's negative answer to what it means for the recipient. Pure.

Two questions decide: who speaks, and is it for good? A smart host speaks for itself until the
recipient is on the table, and often afterwards (login, quota, rate, relaying, our own reputation
with it): that never bounces a recipient (F57), the message is tried elsewhere or later. What is not
known to be permanent is temporary.

The rules are one ordered table; the first that fits decides. Codes: RFC 5321 §4.2.3, RFC 4954 §6;
enhanced codes: RFC 3463 and its registry (RFC 5248). Texts are matched only where codes leave the
speaker open, with the phrases that Postfix, Exim, sendmail, qmail and the large smart hosts use.
"""

import re
from dataclasses import dataclass

from everpost.model.outcome import Bounced, Deferred, Delivered, Phase, Reply, Speaker, Via

__all__ = ["CLOSING", "RULES", "Rule", "classify"]

CLOSING = "the relay is closing the session"
"""The reason that goes with every 421."""

_OPENING = frozenset({Phase.CONNECT, Phase.GREET, Phase.SECURE})
_RECIPIENT = frozenset({Phase.RCPT, Phase.DATA, Phase.BODY, Phase.DOT})
_CONTENT = frozenset({Phase.DATA, Phase.BODY, Phase.DOT})

_LOGIN_TEXT = (
    r"authentication (is )?required|requires? authentication|must (first )?authenticate"
    r"|not (yet )?(authenticated|logged in)|authentication (credentials|fail|unsuccessful)"
    r"|smtp auth|log ?in (first|required)|must issue a starttls|encryption required"
)
_RELAYING_TEXT = (
    r"relay(ing)? (access |is )?(denied|not (permitted|allowed)|prohibited)"
    r"|unable to relay|cannot relay|(not|n't) (permitted |allowed )?(to )?relay"
    r"|rcpthosts|not authori[sz]ed|must equal authori[sz]ed"
)
_SENDER_TEXT = (
    r"sender address rejected|sender verif|verified sender|sender identity|not verified"
    r"|not owned by user|from must|(send|sent) on behalf of|send as (this|the|that)"
)
# Words of Exchange's that only its submission side says, whatever code it puts before them.
_SUBMISSION_TEXT = r"send.?as.?denied|submission.?quota|storedrv\.submission"
_QUOTA_TEXT = (
    r"(daily|hourly|monthly|sending|message|user|account|plan) ((?!size)\w+ )?(quota|limit|rate)"
    r"|recipients? limit|not allowed to send(?! ((e?mails?|messages?) )?to\b)"
    r"|rate.?limit|throttl|too many (messages|emails|connections)|credits? exceeded"
    r"|frequency limit|sending (is |has been )?(paused|suspended|disabled)"
)
_ACCOUNT_TEXT = (
    r"(?<!recipient )account (is |was |has been |been )?(\w+ly )?"
    r"(disabled|suspended|blocked|locked|deactivated)"
)
_REPUTATION_TEXT = (
    r"client host|helo command rejected|blocked using|blocklist|blacklist|block list|dnsbl|\brbl\b"
)
_RELAY_TEXT = "|".join((_LOGIN_TEXT, _RELAYING_TEXT, _SENDER_TEXT, _QUOTA_TEXT, _REPUTATION_TEXT))
_CONTENT_TEXT = r"content|virus|malware|attachment|spam|unsolicited|phish"
_SIZE_TEXT = r"(message|mail|size).*(too (large|big)|exceed)|too (large|big)"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. A field that is None fits everything; `code` and `enhanced` must match whole (an
    answer without enhanced code is `-`), `text` anywhere, without regard to case.

    `permanent` bounces; else the recipient is deferred. `speaker` RELAY on a deferral means that
    the relay is at fault and another may be tried at once.
    """

    reason: str
    speaker: Speaker
    permanent: bool = False
    phases: frozenset[Phase] | None = None
    code: str | None = None
    enhanced: str | None = None
    text: str | None = None

    def fits(self, reply: Reply, phase: Phase) -> bool:
        return (
            (self.phases is None or phase in self.phases)
            and (self.code is None or re.fullmatch(self.code, str(reply.code)) is not None)
            and (
                self.enhanced is None
                or re.fullmatch(self.enhanced, reply.enhanced or "-") is not None
            )
            and (self.text is None or re.search(self.text, reply.text, re.IGNORECASE) is not None)
        )


_RELAY, _DESTINATION = Speaker.RELAY, Speaker.DESTINATION

RULES: tuple[Rule, ...] = (
    # 421 ends the session whatever it answered (RFC 5321 §3.8): nothing was said of a recipient.
    Rule(CLOSING, _RELAY, code="421"),
    # Nobody has been named yet: all of this is between the relay and us.
    Rule("the relay refused the session", _RELAY, phases=_OPENING),
    Rule("the relay refused the login", _RELAY, phases=frozenset({Phase.LOGIN})),
    # RFC 4954 §6, RFC 3207 §4: codes that only ever speak of logins and TLS. 454 also is what
    # Postfix answers to relaying while it is unsure.
    Rule("the relay demands a login or TLS", _RELAY, code="432|454|52[3-6]|53[0458]"),
    Rule("the relay demands a login or TLS", _RELAY, enhanced=r"[45]\.7\.([89]|1[0-4])"),
    # 5.7.0 says only "security": at the content, with such words, it is the content.
    Rule(
        "the content was refused", _DESTINATION, permanent=True, phases=_CONTENT, code="5..",
        enhanced=r"5\.7\.0", text=_CONTENT_TEXT,
    ),
    Rule("the relay refused us for its security policy", _RELAY, enhanced=r"[45]\.7\.0"),
    # RFC 1870 §6.1: no later attempt makes the message smaller. Not the recipient's doing, so the
    # speaker stays the relay.
    Rule("the message is too large", _RELAY, permanent=True, code="5..", enhanced=r"5\.3\.4"),
    # A smart host's answer to MAIL is about its customer, us: sender, quota, policy.
    Rule("the relay refused the sender", _RELAY, phases=frozenset({Phase.MAIL})),
    # With checks delayed to RCPT, as Postfix does, sender complaints come there.
    Rule("the relay refused the sender", _RELAY, phases=_RECIPIENT, enhanced=r"[45]\.1\.[78]"),
    # Among addresses and mailboxes, what hosted smart hosts (Exchange Online above all) say of the
    # account that submits: its limits, and whom it may send as.
    Rule("the relay refused the account", _RELAY, phases=_RECIPIENT,
         enhanced=r"5\.1\.90|5\.2\.25[0-9]"),
    Rule("the relay refused the account", _RELAY, phases=_RECIPIENT, text=_SUBMISSION_TEXT),
    Rule(
        "the relay refused the sender", _RELAY, phases=_RECIPIENT, enhanced=r"5\.1\.0",
        text=_SENDER_TEXT,
    ),
    # The same of connectors and tenants: no relaying, not allowed as this sender, banned for spam,
    # over the tenant's threshold. 5.7.509 is DMARC, and so the destination's.
    Rule("the relay refused the account", _RELAY, phases=_RECIPIENT,
         enhanced=r"5\.7\.(5[47]|6[04]|50[1-8]|7\d\d)"),
    Rule("the relay refused the account", _RELAY, phases=_RECIPIENT, enhanced=r"[45]\.7\.1",
         text=_ACCOUNT_TEXT),
    # Addresses (1) and mailboxes (2) are the destination's business, whatever the words.
    Rule(
        "the address was refused", _DESTINATION, permanent=True, phases=_RECIPIENT, code="5..",
        enhanced=r"5\.[12]\.\d+",
    ),
    # SPF, DKIM, DMARC and ownership checks of the destination (RFC 7293, RFC 7372); their texts
    # speak of authentication too, and mean another one.
    Rule(
        "the destination's policy refused it", _DESTINATION, permanent=True, phases=_RECIPIENT,
        code="5..", enhanced=r"5\.7\.(1[5-9]|2\d)",
    ),
    # 4.5.3 and, of old, 552 to RCPT: too many at once, the rest later (RFC 5321 §4.5.3.1.10).
    Rule("too many recipients at once", _DESTINATION, phases=_RECIPIENT, enhanced=r"[45]\.5\.3"),
    # Here a relay's policy and a destination's look alike but for the words.
    Rule(
        "the relay refused us for its policy", _RELAY, phases=_RECIPIENT,
        enhanced=r"-|[45]\.7\.1|[45]\.[045]\.\d+|4\.[37]\.\d+", text=_RELAY_TEXT,
    ),
    # Gmail's "daily sending limit" is 5.4.5; RFC 3463 §3.5 calls it congestion.
    Rule("the relay's limit is reached", _RELAY, phases=_RECIPIENT, enhanced=r"[45]\.4\.5"),
    # The mail system itself: full, shutting down, misconfigured. 5.3.0 is left out: sendmail says
    # it of unknown users.
    Rule("the relay is out of order", _RELAY, phases=_RECIPIENT,
         enhanced=r"4\.3\.\d+|5\.3\.[1235]"),
    # 552 alone is "exceeded storage allocation": it may have room tomorrow, unless it is our size.
    Rule(
        "the message is too large", _RELAY, permanent=True, phases=_CONTENT, code="552",
        enhanced="-", text=_SIZE_TEXT,
    ),
    Rule("storage or a limit is exceeded", _DESTINATION, phases=_RECIPIENT, code="552",
         enhanced="-"),
    # Complaints about our commands, not about a recipient. 501 at RCPT is about the address.
    Rule("the relay did not understand us", _RELAY, phases=_RECIPIENT, code="50[0234]|555"),
    Rule("the relay did not understand us", _RELAY, phases=_CONTENT, code="501"),
    Rule("the destination is not ready", _DESTINATION, phases=_RECIPIENT, code="4.."),
    # Two codes that contradict each other: not known to be permanent.
    Rule("the answer contradicts itself", _DESTINATION, phases=_RECIPIENT, code="5..",
         enhanced=r"4\..*"),
    Rule("the destination refused it", _DESTINATION, permanent=True, phases=_RECIPIENT, code="5.."),
    # A positive answer where none fits.
    Rule("the relay's answer makes no sense here", _RELAY),
)  # fmt: skip


def classify(reply: Reply, phase: Phase, *, via: Via = Via.RELAY) -> Delivered | Deferred | Bounced:
    """What an answer in this phase means for the recipients it concerns."""
    if phase is Phase.DOT and 200 <= reply.code < 300:
        return Delivered(reply, via)
    rule = next(rule for rule in RULES if rule.fits(reply, phase))
    if rule.permanent:
        return Bounced(reply, phase, rule.speaker)
    return Deferred(rule.reason, phase, rule.speaker, reply, rule.speaker is Speaker.RELAY)
