"""From DNS answers to hosts: the RFC's order, within bounds, never into our own networks; what is
denied for certain bounces, what could not be told is deferred."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.delivery.mx import (
    Exchange,
    Exchanges,
    Host,
    HostAnswers,
    Ours,
    enough,
    exchanges,
    plan,
)
from everpost.model.outcome import Bounced, Deferred, Phase, Speaker
from everpost.net.addresses import family, is_public
from everpost.net.resolver import Absent, Answer, Found, Unresolved

NX = Absent("nxdomain", 60)
NODATA = Absent("nodata", 60)
SERVFAIL = Unresolved("SERVFAIL", answered=True)
TIMEOUT = Unresolved("no answer within 5 s")
V4, V4B, V6 = "8.8.8.8", "9.9.9.9", "2606:4700::1"


def still(_: Any) -> None:
    """A shuffle that leaves everything in its place."""


def found(*records: str) -> Found:
    return Found(records, 60)


def host(*addresses: str, a: Answer = NODATA, aaaa: Answer = NODATA) -> HostAnswers:
    four = [x for x in addresses if family(x) == 4]
    six = [x for x in addresses if family(x) == 6]
    return HostAnswers(found(*four) if four else a, found(*six) if six else aaaa)


def known(*pairs: tuple[int, str], implicit: bool = False) -> Exchanges:
    return Exchanges("there.test", tuple(Exchange(*pair) for pair in pairs), implicit)


def planned(
    known: Exchanges, ours: Ours | None = None, **answers: HostAnswers
) -> tuple[Host, ...] | Bounced | Deferred:
    by_name = {f"{name}.test": answer for name, answer in answers.items()}
    return plan(known, by_name, ours or Ours(), shuffle=still)


def names(hosts: object) -> list[str]:
    assert isinstance(hosts, tuple), hosts
    return [one.name for one in hosts]


def bounced(outcome: object, code: str, *, hard: bool, speaker: Speaker) -> None:
    assert isinstance(outcome, Bounced), outcome
    assert outcome.reply.enhanced == code
    assert (outcome.hard, outcome.speaker, outcome.phase) == (hard, speaker, Phase.ROUTE)


def deferred(outcome: object, speaker: Speaker) -> None:
    assert isinstance(outcome, Deferred), outcome
    assert outcome.reply is not None
    assert outcome.reply.enhanced == "4.4.3"
    assert (outcome.speaker, outcome.phase) == (speaker, Phase.ROUTE)
    assert not outcome.relay_fault


# --- the order --------------------------------------------------------------------------------


def test_backup_is_tried_before_the_host_it_stands_in_for() -> None:
    answer = found("20 Backup.There.Test.", "5 first.there.test.", "10 second.there.test.")
    order = exchanges("there.test", answer, shuffle=still)
    assert order == known(
        (5, "first.there.test"), (10, "second.there.test"), (20, "backup.there.test")
    )


def test_all_senders_go_to_the_same_one_of_equal_hosts() -> None:
    answer = found(*(f"10 mx{n}.there.test." for n in range(4)), "20 last.there.test.")
    firsts = set()
    for seed in range(40):
        order = exchanges("there.test", answer, shuffle=random.Random(seed).shuffle)
        assert isinstance(order, Exchanges)
        assert order.hosts[-1].host == "last.there.test"
        firsts.add(order.hosts[0].host)
    assert len(firsts) == 4


def test_host_named_twice_is_tried_twice() -> None:
    order = exchanges("there.test", found("10 a.test.", "5 a.test."), shuffle=still)
    assert order == known((5, "a.test"))


def test_domain_without_mx_is_its_own_host() -> None:
    order = exchanges("there.test", NODATA, shuffle=still)
    assert order == known((0, "there.test"), implicit=True)


def test_null_mx_is_taken_for_a_host() -> None:
    """RFC 7505 §4.2 asks for 556 and 5.1.10."""
    outcome = exchanges("there.test", found("0 ."), shuffle=still)
    bounced(outcome, "5.1.10", hard=True, speaker=Speaker.DESTINATION)
    assert isinstance(outcome, Bounced)
    assert outcome.reply.code == 556


def test_null_mx_among_others_refuses_their_mail() -> None:
    order = exchanges("there.test", found("0 .", "10 a.test."), shuffle=still)
    assert order == known((10, "a.test"))


@pytest.mark.parametrize(
    "name", ["192.0.2.1", "[192.0.2.1]", "a\\032b.test", "a..test", "-a.test", "x" * 64 + ".test"]
)
def test_host_that_is_no_name_is_connected_to(name: str) -> None:
    outcome = exchanges("there.test", found(f"10 {name}."), shuffle=still)
    bounced(outcome, "5.4.4", hard=False, speaker=Speaker.DESTINATION)
    order = exchanges("there.test", found(f"10 {name}.", "20 ok_host.test."), shuffle=still)
    assert order == known((20, "ok_host.test"))


def test_missing_domain_waits_for_days() -> None:
    outcome = exchanges("there.test", NX, shuffle=still)
    bounced(outcome, "5.1.2", hard=True, speaker=Speaker.DESTINATION)


@pytest.mark.parametrize(
    ("answer", "speaker"), [(SERVFAIL, Speaker.DESTINATION), (TIMEOUT, Speaker.SELF)]
)
def test_outage_of_dns_bounces_mail(answer: Answer, speaker: Speaker) -> None:
    deferred(exchanges("there.test", answer, shuffle=still), speaker)


# --- the addresses ----------------------------------------------------------------------------


def test_one_family_hides_the_other() -> None:
    hosts = planned(known((1, "a.test")), a=host(V4, V4B, V6))
    assert hosts == (Host("a.test", (V6, V4, V4B)),)


def test_dead_host_with_many_addresses_hides_the_next() -> None:
    many = [f"8.8.4.{n}" for n in range(10)]
    hosts = planned(known((1, "a.test"), (2, "b.test"), (3, "c.test")), a=host(*many), b=host(V4))
    assert hosts == (Host("a.test", tuple(many[:4])), Host("b.test", (V4,)))
    alone = planned(known((1, "a.test")), a=host(*many))
    assert alone == (Host("a.test", tuple(many[:5])),)


def test_bound_of_one_address_leaves_none() -> None:
    hosts = planned(known((1, "a.test"), (2, "b.test")), Ours(most=1), a=host(V4), b=host(V4B))
    assert hosts == (Host("a.test", (V4,)),)


def test_family_we_do_not_send_from_uses_up_the_attempt() -> None:
    ours = Ours(sources=("192.0.2.1",))
    assert planned(known((1, "a.test")), ours, a=host(V4, V6)) == (Host("a.test", (V4,)),)
    outcome = planned(known((1, "a.test")), ours, a=host(V6))
    bounced(outcome, "5.4.4", hard=False, speaker=Speaker.SELF)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "192.0.2.1"])
def test_destination_leads_into_our_own_networks(address: str) -> None:
    outcome = planned(known((1, "a.test")), a=host(address))
    bounced(outcome, "5.4.4", hard=False, speaker=Speaker.SELF)
    assert isinstance(outcome, Bounced)
    assert address in outcome.reply.text
    allowed = planned(known((1, "a.test")), Ours(private=True), a=host(address))
    assert allowed == (Host("a.test", (address,)),)
    beside = planned(known((1, "a.test"), (2, "b.test")), a=host(address), b=host(V4))
    assert beside == (Host("b.test", (V4,)),)


@pytest.mark.parametrize(
    ("implicit", "code", "hard"), [(True, "5.1.2", True), (False, "5.4.4", False)]
)
def test_hosts_that_do_not_exist_are_waited_for(implicit: bool, code: str, hard: bool) -> None:
    outcome = planned(known((1, "a.test"), implicit=implicit), a=host(a=NX, aaaa=NX))
    bounced(outcome, code, hard=hard, speaker=Speaker.DESTINATION)


def test_one_family_that_cannot_be_told_stops_the_other() -> None:
    assert planned(known((1, "a.test")), a=host(V4, aaaa=SERVFAIL)) == (Host("a.test", (V4,)),)
    deferred(planned(known((1, "a.test")), a=host(aaaa=SERVFAIL)), Speaker.DESTINATION)


def test_host_that_cannot_be_told_bounces_for_one_that_does_not_exist() -> None:
    both = known((1, "a.test"), (2, "b.test"))
    deferred(planned(both, a=host(a=TIMEOUT), b=host(a=NX, aaaa=NX)), Speaker.SELF)
    deferred(planned(both, a=host("10.0.0.1"), b=host(a=TIMEOUT)), Speaker.SELF)
    assert planned(both, a=host(a=TIMEOUT), b=host(V4)) == (Host("b.test", (V4,)),)


def test_hundred_dead_hosts_bounce_though_most_were_not_looked_up() -> None:
    many = known(*((n, f"h{n}.test") for n in range(100)))
    answers = {f"h{n}.test": host(a=NX, aaaa=NX) for n in range(9)}
    outcome = plan(many, answers, Ours(), shuffle=still)
    deferred(outcome, Speaker.DESTINATION)


# --- ourselves --------------------------------------------------------------------------------


def test_mail_goes_round_in_a_circle_by_name() -> None:
    ours = Ours(names=frozenset({"me.test"}))
    hosts = known((1, "a.test"), (5, "me.test"), (5, "b.test"), (9, "c.test"))
    answers = {"a": host(V4), "b": host(V4B), "c": host(V6), "me": host(V4)}
    assert names(planned(hosts, ours, **answers)) == ["a.test"]
    outcome = planned(known((5, "me.test"), (5, "b.test")), ours, **answers)
    bounced(outcome, "5.4.6", hard=False, speaker=Speaker.SELF)
    dead = planned(hosts, ours, a=host(a=NX, aaaa=NX))
    bounced(dead, "5.4.6", hard=False, speaker=Speaker.SELF)
    deferred(planned(hosts, ours, a=host(a=TIMEOUT)), Speaker.SELF)


def test_mail_goes_round_in_a_circle_by_address() -> None:
    ours = Ours(addresses=frozenset({V4}))
    hosts = known((1, "a.test"), (5, "b.test"))
    assert names(planned(hosts, ours, a=host(V6), b=host(V4, V4B))) == ["a.test"]
    outcome = planned(hosts, ours, a=host(V4), b=host(V4B))
    bounced(outcome, "5.4.6", hard=False, speaker=Speaker.SELF)


# --- whatever DNS says ------------------------------------------------------------------------

NAMES = st.sampled_from(["a.test", "b.test", "c.test", "me.test", "127.0.0.1", "", "x y", "d.test"])
ADDRESSES = st.ip_addresses().map(str) | st.sampled_from([V4, V6, "127.0.0.1", "::1"])
NEGATIVE: st.SearchStrategy[Answer] = st.sampled_from([NX, NODATA, SERVFAIL, TIMEOUT])


def of_family(number: int) -> st.SearchStrategy[Answer]:
    some = st.lists(ADDRESSES.filter(lambda a: family(a) == number), min_size=1, max_size=8)
    return st.one_of(NEGATIVE, some.map(lambda found_: Found(tuple(found_), 60)))


MX: st.SearchStrategy[Answer] = NEGATIVE | st.lists(
    st.tuples(st.integers(0, 3), NAMES), min_size=1, max_size=100
).map(lambda pairs: Found(tuple(f"{n} {name}." for n, name in pairs), 60))


@given(
    MX,
    st.dictionaries(NAMES, st.builds(HostAnswers, a=of_family(4), aaaa=of_family(6))),
    st.builds(
        Ours,
        names=st.just(frozenset({"me.test"})),
        addresses=st.just(frozenset({V4B})),
        sources=st.sampled_from([(), ("192.0.2.1",), ("192.0.2.1", "2001:db8::1")]),
        private=st.booleans(),
        most=st.integers(1, 7),
    ),
    st.randoms(use_true_random=False),
)
def test_any_answers_give_a_plan_within_bounds_or_an_outcome(
    mx: Answer, answers: dict[str, HostAnswers], ours: Ours, rng: random.Random
) -> None:
    order = exchanges("there.test", mx, shuffle=rng.shuffle)
    if not isinstance(order, Exchanges):
        assert isinstance(order, Bounced | Deferred)
        return
    hosts = plan(order, answers, ours, shuffle=rng.shuffle)
    if not isinstance(hosts, tuple):
        assert isinstance(hosts, Bounced | Deferred)
        unknown = any(isinstance(a, Unresolved) for h in answers.values() for a in (h.a, h.aaaa))
        unasked = any(one.host not in answers for one in order.hosts)
        assert unknown or unasked or isinstance(hosts, Bounced)
        assert not enough(order, answers, ours)
        return
    assert hosts
    assert all(one.addresses for one in hosts)
    assert sum(len(one.addresses) for one in hosts) <= ours.most
    assert "me.test" not in names(hosts)
    for address in (a for one in hosts for a in one.addresses):
        assert ours.private or is_public(address)
        assert address not in ours.addresses
        assert not ours.sources or family(address) in {family(s) for s in ours.sources}
