"""From what DNS says of a destination to the hosts that its mail may go to. Pure.

RFC 5321 §5.1 gives the order, RFC 7505 the null MX. Three things decide in this order: what the
domain's MX records say, whether we are among the hosts ourselves, and which addresses the others
have. What DNS denies for certain bounces; what it could not tell now is deferred (F62).
"""

import re
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any

import msgspec

from everpost.model.outcome import Bounced, Deferred, Phase, Reply, Speaker
from everpost.net.addresses import by_family, family, is_public
from everpost.net.resolver import Absent, Answer, Found, Unresolved

__all__ = [
    "Dead",
    "Exchange",
    "Exchanges",
    "Host",
    "HostAnswers",
    "Ours",
    "enough",
    "exchanges",
    "plan",
]

Dead = Bounced | Deferred
"""No host can be named: what everybody at the destination gets."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# No top-level label is numeric (RFC 3696 §2): that is an address, which RFC 5321 §5.1 does not
# allow here. What else does not fit cannot be named in TLS either.
_host_name = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+$){_LABEL}").fullmatch

_FIRST_HOST_LEAVES = 2
"""Addresses of an attempt that the first host leaves to the next ones, however many it has: a dead
host with ten addresses must not hide a living one (F64)."""


class Exchange(msgspec.Struct, frozen=True):
    """A mail host and its preference; the lowest is the first."""

    preference: int
    host: str


class Exchanges(msgspec.Struct, frozen=True):
    """The mail hosts of a domain, in the order in which to try them. `implicit`: there is no MX
    record, so the domain itself is its host."""

    domain: str
    hosts: tuple[Exchange, ...]
    implicit: bool = False


class HostAnswers(msgspec.Struct, frozen=True):
    """What DNS says of one host's addresses."""

    a: Answer
    aaaa: Answer


class Ours(msgspec.Struct, frozen=True):
    """What the plan must respect: `names` and `addresses` that are ourselves; `sources`, the
    addresses to connect from (none: any family may be used); whether addresses may be
    `private`; how many addresses an attempt tries at `most`."""

    names: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    sources: tuple[str, ...] = ()
    private: bool = False
    most: int = 5


class Host(msgspec.Struct, frozen=True):
    """A host to try and the addresses to race for it."""

    name: str
    addresses: tuple[str, ...]


def exchanges(
    domain: str, answer: Answer, *, shuffle: Callable[[MutableSequence[Any]], None]
) -> Exchanges | Dead:
    """The order of hosts that the answer to the MX question gives. `shuffle` mixes those of equal
    preference, so that all senders together spread their load (RFC 5321 §5.1)."""
    if isinstance(answer, Unresolved):
        return _unknown(f"the mail hosts of {domain} could not be looked up", answer)
    if isinstance(answer, Absent):
        if answer.kind == "nxdomain":
            return _no_domain(f"the domain {domain} does not exist")
        return Exchanges(domain, (Exchange(0, domain),), implicit=True)
    found = [_exchange(record) for record in answer.records]
    # RFC 7505 §3: a null MX stands alone; beside others it says nothing.
    if all(host == "" for _, host in found):
        return Bounced(
            Reply(556, f"the domain {domain} accepts no mail (null MX)", "5.1.10"),
            Phase.ROUTE,
            hard=True,
        )
    usable = [Exchange(*pair) for pair in found if _host_name(pair[1])]
    shuffle(usable)
    ordered: dict[str, Exchange] = {}
    for one in sorted(usable, key=lambda one: one.preference):
        ordered.setdefault(one.host, one)
    if not ordered:
        return _no_host(f"no MX record of {domain} names a host")
    return Exchanges(domain, tuple(ordered.values()))


def _exchange(record: str) -> tuple[int, str]:
    """Preference and host of a record as RFC 1035 §5.1 writes it; the null host is empty."""
    preference, _, host = record.partition(" ")
    return int(preference), host.rstrip(".").lower()


def plan(
    known: Exchanges,
    answers: Mapping[str, HostAnswers],
    ours: Ours,
    *,
    shuffle: Callable[[MutableSequence[Any]], None],
) -> tuple[Host, ...] | Dead:
    """The hosts to try, with at most `ours.most` addresses in all, or why there is none.

    `answers` may leave out later hosts: whoever asks stops when `enough` are known. `shuffle` mixes
    the addresses of a host, which the resolver gives in one fixed order.
    """
    hosts: list[Host] = []
    private: list[str] = []
    unfit: list[str] = []
    unknown: Unresolved | None = None
    before_us = _before_us(known, answers, ours)
    families = {family(source) for source in ours.sources}
    for one in before_us:
        addresses, reason = _addresses(answers.get(one.host))
        unknown = reason or unknown
        allowed: list[str] = []
        for address in addresses:
            if families and family(address) not in families:
                unfit.append(address)
            elif ours.private or is_public(address):
                allowed.append(address)
            else:
                private.append(address)
        if allowed:
            shuffle(allowed)
            allowed.sort(key=family, reverse=True)  # IPv6 first, RFC 6724 §2.1
            hosts.append(Host(one.host, tuple(by_family(allowed))))
    if hosts:
        return _within(hosts, ours.most)
    if unknown is None and any(one.host not in answers for one in before_us):
        unknown = Unresolved("there are more hosts than we look up", answered=True)
    if unknown is not None:
        return _unknown(f"no mail host of {known.domain} could be looked up", unknown)
    if len(before_us) < len(known.hosts):
        return _loop(known, before_us)
    if private:
        return _private(known.domain, private)
    if unfit:
        return _no_way(known.domain, unfit)
    if known.implicit:
        return _no_domain(f"the domain {known.domain} has neither MX nor address")
    return _no_host(f"no mail host of {known.domain} exists")


def enough(known: Exchanges, answers: Mapping[str, HostAnswers], ours: Ours) -> bool:
    """Whether no further host need be looked up: the plan has all the addresses it may have."""
    found = plan(known, answers, ours, shuffle=lambda _: None)
    return isinstance(found, tuple) and sum(len(h.addresses) for h in found) >= ours.most


def _before_us(
    known: Exchanges, answers: Mapping[str, HostAnswers], ours: Ours
) -> Sequence[Exchange]:
    """RFC 5321 §5.1: where we are one of the hosts, only those with a better preference than ours
    may be tried; all others would send the mail round in a circle. Hosts whose addresses nobody
    asked for yet are known by their names only."""
    limit = min(
        (one.preference for one in known.hosts if _is_us(one.host, answers, ours)), default=None
    )
    if limit is None:
        return known.hosts
    return [one for one in known.hosts if one.preference < limit]


def _is_us(host: str, answers: Mapping[str, HostAnswers], ours: Ours) -> bool:
    if host in ours.names:
        return True
    addresses, _ = _addresses(answers.get(host))
    return any(address in ours.addresses for address in addresses)


def _addresses(answers: HostAnswers | None) -> tuple[list[str], Unresolved | None]:
    """All addresses of a host, and what could not be found out."""
    if answers is None:
        return [], None
    addresses: list[str] = []
    unknown: Unresolved | None = None
    for answer in (answers.aaaa, answers.a):
        if isinstance(answer, Found):
            addresses += answer.records
        elif isinstance(answer, Unresolved):
            unknown = answer
    return addresses, unknown


def _within(hosts: Sequence[Host], most: int) -> tuple[Host, ...]:
    """No more than so many addresses; of them the first host takes what the next may spare."""
    kept: list[Host] = []
    left = most
    for n, host in enumerate(hosts):
        more = len(hosts) - n - 1
        share = max(left - min(_FIRST_HOST_LEAVES, more), 1) if n == 0 else left
        kept.append(Host(host.name, host.addresses[:share]))
        left -= len(kept[-1].addresses)
        if left <= 0:
            break
    return tuple(kept)


# --- where there is none --------------------------------------------------------------------------


def _unknown(text: str, why: Unresolved) -> Deferred:
    """RFC 3463 §3.5: 4.4.3, directory server failure. Where no server answered at all, the fault
    lies at our end, and the look-up is tried again sooner than a destination's own."""
    return Deferred(
        f"{text}: {why.reason}",
        Phase.ROUTE,
        Speaker.DESTINATION if why.answered else Speaker.SELF,
        Reply(451, text, "4.4.3"),
    )


def _no_domain(text: str) -> Bounced:
    """RFC 3463 §3.2: 5.1.2, bad destination system address. Hard: no message will ever arrive
    there. A domain without any host is one, as in Postfix ("Host not found")."""
    return Bounced(Reply(550, text, "5.1.2"), Phase.ROUTE, hard=True)


def _no_host(text: str) -> Bounced:
    """MX records of which none leads anywhere. RFC 5321 §5.1 calls it an error, which Postfix
    bounces too unless told otherwise (smtp_defer_if_no_mx_address_found); 5.4.4 is "unable to
    route". Not hard: the domain means to take mail, and its records may be mended."""
    return Bounced(Reply(550, text, "5.4.4"), Phase.ROUTE)


def _private(domain: str, addresses: Sequence[str]) -> Bounced:
    """All hosts lie in networks that this relay may not connect to. Final, since waiting changes
    neither the records nor our setting, and since `MX 127.0.0.1` is an old way to say that no mail
    is wanted. Soft and ours, since the address may be good: it is our rule that stands between."""
    text = f"the mail hosts of {domain} have no public address ({addresses[0]}); see allow_private"
    return Bounced(Reply(550, text, "5.4.4"), Phase.ROUTE, Speaker.SELF)


def _no_way(domain: str, addresses: Sequence[str]) -> Bounced:
    """All hosts are of an address family that this relay does not connect from."""
    text = f"the mail hosts of {domain} have no address of a family we send from ({addresses[0]})"
    return Bounced(Reply(550, text, "5.4.4"), Phase.ROUTE, Speaker.SELF)


def _loop(known: Exchanges, before_us: Sequence[Exchange]) -> Bounced:
    """We are the best host there is, and do not take this mail: RFC 3463 §3.5 has 5.4.6."""
    text = f"the mail for {known.domain} loops back to this server"
    if before_us:
        text = f"no mail host of {known.domain} before this server itself exists"
    return Bounced(Reply(550, text, "5.4.6"), Phase.ROUTE, Speaker.SELF)
