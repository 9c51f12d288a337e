"""Sending domains: whose they are, and what DNS must say."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.catalog import DomainView
from everpost.catalog.domains import _judge
from everpost.catalog.views import DnsRecord
from everpost.compose.dkim import Algorithm, load_key
from everpost.model.credential import SENDING_ACCESS, Credential
from everpost.model.errors import Conflict, Forbidden, Invalid, NotFound
from everpost.net.resolver import Absent, Answer, Found, Unresolved
from tests.support.catalog_house import ANA, BOB, House, opened

SENDER = msgspec.structs.replace(ANA, permission=SENDING_ACCESS)
CAGED = msgspec.structs.replace(ANA, sandbox=True)


def _run(folder: Path, work: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as house:
            await work(house)

    asyncio.run(run())


def _publish(house: House, view: DomainView) -> None:
    for record in view.records:
        house.names.publish(record.name, record.value)


def test_domain_gets_two_keys_that_sign_and_are_sealed(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "Good.TEST")
        assert (view.row.name, view.row.status) == ("good.test", "pending")
        names = [(r.record, r.name, r.status) for r in view.records]
        assert names == [
            ("DKIM", "ep1._domainkey.good.test", "pending"),
            ("DKIM", "ep1e._domainkey.good.test", "pending"),
            ("DMARC", "_dmarc.good.test", "not_started"),
        ]
        rows = house.directory.now.dkim_keys[view.row.id]
        for row, algorithm in zip(rows, ("rsa-sha256", "ed25519-sha256"), strict=True):
            der = house.sealer.unseal(row.key_id, row.sealed, context=row.id)
            key = load_key(der, domain="good.test", selector=row.selector)
            assert key.algorithm == row.algorithm == algorithm
            assert der not in row.sealed
        assert [action for _, action in await house.audited()][:3] == [
            "dkim_key.add", "dkim_key.add", "domain.add",
        ]  # fmt: skip

    _run(tmp_path, work)


def test_trusted_domain_is_ready_only_once_its_keys_are_there(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "good.test", trust=True, algorithms=["ed25519-sha256"])
        assert (view.row.status, view.row.trusted) == ("verified", True)
        assert view.records[0].name == "ep1e._domainkey.good.test"
        actions = [action for _, action in await house.audited()]
        assert actions[:3] == ["domain.trust", "dkim_key.add", "domain.add"]
        assert (await house.domains.verify(ANA, view.row.id)).row.status == "verified"

    _run(tmp_path, work)


def test_stranger_does_not_waive_his_own_verification(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        with pytest.raises(Forbidden):
            await house.domains.add(BOB, "bank.test", trust=True)
        assert house.domains.list(BOB) == []

    _run(tmp_path, work)


def test_records_in_place_verify_the_domain(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "good.test")
        assert (await house.domains.verify(ANA, view.row.id)).row.status == "pending"
        _publish(house, view)
        house.time.at += 5
        verified = await house.domains.verify(ANA, view.row.id)
        assert (verified.row.status, verified.row.verified_at) == ("verified", house.time.at)
        assert {r.status for r in verified.records} == {"verified"}
        assert house.directory.now.domains["good.test"].status == "verified"
        assert all(house.names.fresh)  # never from a cache: the owner has just changed it
        seen = house.domains.get(ANA, view.row.id)
        assert [r.status for r in seen.records] == ["verified", "verified", "verified"]
        assert ("key:ana", "domain.verify") in await house.audited()

    _run(tmp_path, work)


def test_one_record_of_two_is_not_enough(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "good.test")
        _publish(house, view)
        del house.names.answers["ep1e._domainkey.good.test"]
        found = await house.domains.verify(ANA, view.row.id)
        assert found.row.status == "pending"
        assert [r.status for r in found.records] == ["verified", "pending", "verified"]
        assert house.domains.get(ANA, view.row.id) == found
        house.names.publish("ep1e._domainkey.good.test", "v=DKIM1; k=ed25519; p=other")
        del house.names.answers["_dmarc.good.test"]
        found = await house.domains.verify(ANA, view.row.id)
        assert found.row.status == "failed"
        assert [r.status for r in found.records] == ["verified", "failed", "not_started"]
        (listed,) = house.domains.list(ANA)
        assert listed == found

    _run(tmp_path, work)


def test_anothers_key_at_the_selector_fails_the_domain(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "good.test")
        _publish(house, view)
        house.names.publish("ep1._domainkey.good.test", "v=DKIM1; k=rsa; p=MIGfother")
        assert (await house.domains.verify(ANA, view.row.id)).row.status == "failed"
        _publish(house, view)
        assert (await house.domains.verify(ANA, view.row.id)).row.status == "verified"

    _run(tmp_path, work)


def test_outage_of_dns_takes_no_domain_away(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "good.test")
        _publish(house, view)
        await house.domains.verify(ANA, view.row.id)
        for name in house.names.answers:
            house.names.answers[name] = Unresolved("SERVFAIL")
        found = await house.domains.verify(ANA, view.row.id)
        assert found.row.status == "verified"
        assert found.records[0].status == "unknown"

    _run(tmp_path, work)


def test_records_taken_away_after_verifying_fail_the_domain(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "good.test")
        _publish(house, view)
        await house.domains.verify(ANA, view.row.id)
        house.names.answers.clear()
        assert (await house.domains.verify(ANA, view.row.id)).row.status == "failed"

    _run(tmp_path, work)


def test_domain_removed_while_dns_is_asked_does_not_come_back(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "good.test", signing="unsigned")
        _publish(house, view)
        ask = house.names.txt

        async def slow(name: str, *, fresh: bool = False) -> Answer:
            await house.domains.remove(ANA, view.row.id)
            return await ask(name, fresh=fresh)

        house.names.txt = slow  # type: ignore[method-assign]
        with pytest.raises(NotFound):
            await house.domains.verify(ANA, view.row.id)
        assert await house.store.domains() == []

    _run(tmp_path, work)


def test_unsigned_domain_still_proves_whose_it_is(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "good.test", signing="unsigned")
        assert view.row.id not in house.directory.now.dkim_keys
        assert view.records[0].name == "_everpost.good.test"
        assert (await house.domains.verify(ANA, view.row.id)).row.status == "pending"
        house.names.publish("_everpost.good.test", "something else", view.records[0].value)
        assert (await house.domains.verify(ANA, view.row.id)).row.status == "verified"

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("owner", "name", "taken"),
    [
        (ANA, "good.test", True),
        (BOB, "GOOD.test", True),
        (BOB, "mail.good.test", True),
        (BOB, "test.good.test.example", False),
        (ANA, "mail.good.test", False),
        (BOB, "verygood.test", False),
    ],
)
def test_domain_has_one_owner_with_all_below_it(
    tmp_path: Path, owner: object, name: str, taken: bool
) -> None:
    """S57."""

    async def work(house: House) -> None:
        await house.domains.add(ANA, "good.test", signing="unsigned", trust=True)
        credential = BOB if owner is BOB else ANA
        if taken:
            with pytest.raises(Conflict):
                await house.domains.add(credential, name, signing="unsigned")
        else:
            await house.domains.add(credential, name, signing="unsigned")

    _run(tmp_path, work)


def test_two_who_add_one_domain_at_once_do_not_both_get_it(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        both = await asyncio.gather(
            *(house.domains.add(who, "good.test") for who in (ANA, BOB)), return_exceptions=True
        )
        assert sorted(type(answer).__name__ for answer in both) == ["Conflict", "DomainView"]
        assert len(await house.store.domains()) == 1
        assert len(await house.store.dkim_keys()) == 2

    _run(tmp_path, work)


def test_stranger_does_not_take_the_domain_above(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.domains.add(ANA, "mail.good.test", signing="unsigned", trust=True)
        with pytest.raises(Conflict):
            await house.domains.add(BOB, "good.test", signing="unsigned")

    _run(tmp_path, work)


@pytest.mark.parametrize("squatted", ["www.good.test", "test.good.test", "mail.good.test"])
def test_name_that_nobody_proved_keeps_no_owner_out(tmp_path: Path, squatted: str) -> None:
    async def work(house: House) -> None:
        theirs = await house.domains.add(BOB, squatted, signing="unsigned")
        owned = await house.domains.add(ANA, "good.test", signing="unsigned")
        above = await house.domains.add(ANA, f"a.{squatted}", signing="unsigned")
        for view in (owned, above):
            _publish(house, view)
            assert (await house.domains.verify(ANA, view.row.id)).row.status == "verified"
        _publish(house, theirs)  # too late, whoever let that record in
        with pytest.raises(Conflict):
            await house.domains.verify(BOB, theirs.row.id)
        assert house.domains.get(BOB, theirs.row.id).row.status == "pending"
        assert (await house.domains.verify(ANA, owned.row.id)).row.status == "verified"
        await house.domains.remove(ANA, owned.row.id)
        await house.domains.remove(ANA, above.row.id)
        assert (await house.domains.verify(BOB, theirs.row.id)).row.status == "verified"
        with pytest.raises(Conflict):  # one name has one row, proved or not
            await house.domains.add(ANA, squatted, signing="unsigned")

    _run(tmp_path, work)


def test_trust_does_not_overrule_who_proved_it_meanwhile(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        theirs = await house.domains.add(BOB, "mail.good.test", signing="unsigned")
        _publish(house, theirs)
        made = house.domains._make_key

        async def verified_meanwhile() -> None:
            await house.domains.verify(BOB, theirs.row.id)

        loop = asyncio.get_running_loop()

        def slow(algorithm: Algorithm) -> tuple[bytes, str]:
            asyncio.run_coroutine_threadsafe(verified_meanwhile(), loop).result(10)
            return made(algorithm)

        house.domains._make_key = slow
        with pytest.raises(Conflict):
            await house.domains.add(ANA, "good.test", trust=True, algorithms=["ed25519-sha256"])
        assert not any(row.trusted for row in await house.store.domains())

    _run(tmp_path, work)


def test_other_projects_domain_looks_like_none(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        id_ = (await house.domains.add(ANA, "good.test", signing="unsigned")).row.id
        assert house.domains.list(BOB) == []
        with pytest.raises(NotFound) as theirs:
            house.domains.get(BOB, id_)
        with pytest.raises(NotFound) as none:
            house.domains.get(BOB, bytes(16))
        assert theirs.value.message == none.value.message
        with pytest.raises(NotFound):
            await house.domains.verify(BOB, id_)
        assert not await house.domains.remove(BOB, id_)
        assert len(house.domains.list(ANA)) == 1

    _run(tmp_path, work)


def test_removed_domain_takes_its_keys_with_it(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        id_ = (await house.domains.add(ANA, "good.test", algorithms=["ed25519-sha256"])).row.id
        assert await house.domains.remove(ANA, id_)
        assert not await house.domains.remove(ANA, id_)
        assert house.domains.list(ANA) == []
        assert await house.store.dkim_keys() == []
        await house.domains.add(BOB, "good.test", signing="unsigned")

    _run(tmp_path, work)


@pytest.mark.parametrize("who", [SENDER, CAGED], ids=["sending key", "sandbox key"])
def test_lesser_key_changes_no_domain(tmp_path: Path, who: Credential) -> None:
    async def work(house: House) -> None:
        id_ = (await house.domains.add(ANA, "good.test", signing="unsigned")).row.id
        with pytest.raises(Forbidden):
            await house.domains.add(who, "more.test")
        with pytest.raises(Forbidden):
            await house.domains.add(who, "more.test", trust=True)
        with pytest.raises(Forbidden):
            await house.domains.verify(who, id_)
        with pytest.raises(Forbidden):
            await house.domains.remove(who, id_)

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("name", "choices", "field"),
    [
        ("localhost", {}, "name"),
        ("127.0.0.1", {}, "name"),
        ("[127.0.0.1]", {}, "name"),
        ("good.test.", {}, "name"),
        ("a b.test", {}, "name"),
        ("a\n.test", {}, "name"),
        ("-x.test", {}, "name"),
        ("a" * 64 + ".test", {}, "name"),
        ("a." * 127 + "test", {}, "name"),
        ("good.test", {"signing": "maybe"}, "signing"),
        ("good.test", {"algorithms": []}, "algorithms"),
        ("good.test", {"algorithms": ["rsa-sha1"]}, "algorithms"),
        ("good.test", {"selector": "a.b; p="}, "selector"),
    ],
)
def test_bad_value_is_refused_by_its_field(
    tmp_path: Path, name: str, choices: dict[str, object], field: str
) -> None:
    async def work(house: House) -> None:
        with pytest.raises(Invalid) as refused:
            await house.domains.add(ANA, name, **choices)  # type: ignore[arg-type]
        assert refused.value.field == field
        assert house.domains.list(ANA) == []

    _run(tmp_path, work)


def test_international_name_is_kept_as_dns_has_it(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.domains.add(ANA, "bücher.test", signing="unsigned")
        assert view.row.name == "xn--bcher-kva.test"
        with pytest.raises(Conflict):
            await house.domains.add(BOB, "xn--bcher-kva.test")

    _run(tmp_path, work)


def test_shown_domain_is_in_resends_words(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        shown = (await house.domains.add(ANA, "good.test", selector="s1")).as_json()
        assert set(shown) >= {"id", "name", "status", "created_at", "records"}
        first = shown["records"][0]
        assert set(first) == {"record", "name", "type", "ttl", "status", "value"}
        assert (first["name"], first["type"], first["ttl"]) == (
            "s1._domainkey.good.test", "TXT", "Auto",
        )  # fmt: skip

    _run(tmp_path, work)


# --- what counts as the record ----------------------------------------------------------------

RSA = DnsRecord(record="DKIM", name="n", value="v=DKIM1; k=rsa; p=AAAABBBB")
ED = DnsRecord(record="DKIM", name="n", value="v=DKIM1; k=ed25519; p=AAAABBBB")


@pytest.mark.parametrize(
    ("record", "texts", "status"),
    [
        (RSA, ["v=DKIM1; k=rsa; p=AAAABBBB"], "verified"),
        (RSA, ["v=DKIM1;k=rsa;p=AAAA BBBB;"], "verified"),
        (RSA, ["p=AAAABBBB ; t=s; k = rsa; n=a note"], "verified"),
        (RSA, ["v=DKIM1; p=AAAABBBB"], "verified"),
        (ED, ["v=DKIM1; p=AAAABBBB"], "failed"),
        (RSA, ["v=DKIM1; k=ed25519; p=AAAABBBB"], "failed"),
        (RSA, ["v=DKIM2; k=rsa; p=AAAABBBB"], "failed"),
        (RSA, ["v=DKIM1; k=rsa; p="], "failed"),
        (RSA, ["v=DKIM1; k=rsa; p=AAAABBB"], "failed"),
        (RSA, ["v=DKIM1; k=rsa; p=aaaabbbb"], "failed"),
        (RSA, ["v=DKIM1; p=AAAABBBB", "v=DKIM1; p=CCCC"], "failed"),
        (RSA, ["v=spf1 -all", "v=DKIM1; p=AAAABBBB"], "verified"),
        (RSA, ["v=spf1 -all"], "pending"),
        (RSA, [""], "pending"),
    ],
)
def test_record_is_judged_by_what_a_verifier_would_make_of_it(
    record: DnsRecord, texts: list[str], status: str
) -> None:
    assert _judge(record, Found(tuple(texts), 60)) == status


DMARC = DnsRecord(record="DMARC", name="_dmarc.n", value="v=DMARC1; p=none;")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Absent("nxdomain"), "not_started"),
        (Unresolved("SERVFAIL"), "not_started"),
        (Found(("v=spf1 -all",), 60), "not_started"),
        (Found(("v=DMARC1; p=reject",), 60), "verified"),
    ],
)
def test_suggested_record_never_looks_like_something_to_wait_for(
    answer: Answer, status: str
) -> None:
    assert _judge(DMARC, answer) == status


def test_missing_and_unanswered_are_not_the_same() -> None:
    assert _judge(RSA, Absent("nodata")) == "pending"
    assert _judge(RSA, Unresolved("SERVFAIL")) == "unknown"


@settings(max_examples=100)
@given(st.text())
def test_no_text_in_dns_breaks_the_judging(text: str) -> None:
    assert _judge(RSA, Found((text,), 60)) in {"pending", "failed"}
