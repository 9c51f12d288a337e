"""Relays: what an operator may write, and what becomes of the password."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from copy import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.catalog.fields import NewRelay, RelayFields
from everpost.catalog.relay_form import RelayForm, read_form
from everpost.catalog.unusable import Unusable
from everpost.ids import text
from everpost.model.credential import SENDING_ACCESS
from everpost.model.errors import Conflict, Forbidden, Invalid, Missing, NotFound, Refusal
from everpost.model.relay import Relay, RelayKind, RelayState, TlsPolicy
from everpost.security import MasterKey, Sealer
from everpost.telemetry import alarm
from tests.support.catalog_house import ANA, BOB, House, opened

SENDER = msgspec.structs.replace(ANA, permission=SENDING_ACCESS)
CAGED = msgspec.structs.replace(ANA, sandbox=True)


def _run(folder: Path, work: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as house:
            await work(house)

    asyncio.run(run())


def _form(url: str, **given: Any) -> RelayForm:
    return read_form(NewRelay(url=url, **given))


# --- what an operator may write ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port", "implicit", "tls"),
    [
        ("smtp://mail.good.test", "mail.good.test", 25, False, "opportunistic"),
        ("mail.good.test", "mail.good.test", 25, False, "opportunistic"),
        ("mail.good.test:2525", "mail.good.test", 2525, False, "opportunistic"),
        ("SMTP://Mail.Good.Test:587/", "mail.good.test", 587, False, "opportunistic"),
        ("smtps://mail.good.test", "mail.good.test", 465, True, "verify"),
        ("smtp://me:pw@mail.good.test", "mail.good.test", 587, False, "verify"),
        ("smtp://me:pw@mail.good.test:25", "mail.good.test", 25, False, "verify"),
        ("smtp://me:pw@127.0.0.1:2525", "127.0.0.1", 2525, False, "none"),
        ("smtp://me:pw@[::1]", "::1", 587, False, "none"),
        ("smtp://me:pw@localhost", "localhost", 587, False, "none"),
        ("smtps://me:pw@localhost", "localhost", 465, True, "verify"),
        ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, False, "opportunistic"),
        ("smtp://[2001:db8::0:1]:26", "2001:db8::1", 26, False, "opportunistic"),
        ("smtp://postfix", "postfix", 25, False, "opportunistic"),
        ("smtp://compose_postfix_1", "compose_postfix_1", 25, False, "opportunistic"),
        ("smtp://bücher.test", "xn--bcher-kva.test", 25, False, "opportunistic"),
    ],
)
def test_url_says_where_and_how(url: str, host: str, port: int, implicit: bool, tls: str) -> None:
    form = _form(url)
    assert (form.host, form.port) == (host, port)
    assert (form.settings["implicit_tls"], form.settings["tls"]) == (implicit, tls)


def test_login_in_the_url_is_percent_decoded() -> None:
    form = _form("smtp://me%40good.test:p%3Aw%2F%25@mail.good.test")
    assert (form.settings["username"], form.password) == ("me@good.test", "p:w/%")
    apart = _form("smtp://mail.good.test", username="me", password="50%40")
    assert (apart.settings["username"], apart.password) == ("me", "50%40")


@pytest.mark.parametrize(
    ("url", "given", "field"),
    [
        ("", {}, "url"),
        ("http://mail.good.test", {}, "url"),
        ("smtp://", {}, "url"),
        ("smtp://:25", {}, "url"),
        ("smtp://mail.good.test:0", {}, "url"),
        ("smtp://mail.good.test:70000", {}, "url"),
        ("smtp://mail.good.test:smtp", {}, "url"),
        ("smtp://mail.good.test/path", {}, "url"),
        ("smtp://mail.good.test?tls=none", {}, "url"),
        ("smtp://mail.good.test#x", {}, "url"),
        ("smtp://mail good.test", {}, "url"),
        ("smtp://mail.good.test\r\n", {}, "url"),
        ("smtp://mail\t.good.test", {}, "url"),
        ("smtp://127.1", {}, "url"),
        ("smtp://[::1", {}, "url"),
        ("smtp://-x.test", {}, "url"),
        ("smtp://" + "a" * 64, {}, "url"),
        ("smtp://" + "a." * 130 + "test", {}, "url"),
        ("smtp://" + "a" * 3000, {}, "url"),
        ("smtp://%ff:x@h.test", {}, "url"),
        ("smtp://me:a/b@h.test", {}, "url"),
        ("smtp://me@h.test", {}, "password"),
        ("smtp://:pw@h.test", {}, "username"),
        ("smtp://me:pw@h.test", {"password": "other"}, "password"),
        ("smtp://h.test", {"username": "me"}, "password"),
        ("smtp://h.test", {"password": "pw"}, "username"),
        ("smtp://h.test", {"username": "a\r\nRCPT", "password": "x"}, "username"),
        ("smtp://me:a%00b@h.test", {}, "password"),
        ("smtp://h.test", {"tls": "maybe"}, "tls"),
        ("smtps://h.test", {"tls": "none"}, "tls"),
        ("smtps://h.test", {"tls": "opportunistic"}, "tls"),
        ("smtp://me:pw@h.test", {"tls": "opportunistic"}, "tls"),
        ("smtp://me:pw@h.test", {"auth": "CRAM-MD5"}, "auth"),
        ("smtp://h.test", {"auth": "PLAIN"}, "auth"),
        ("smtp://h.test", {"connections": 0}, "connections"),
        ("smtp://h.test", {"connections": True}, "connections"),
        ("smtp://h.test", {"weight": -1}, "weight"),
        ("smtp://h.test", {"weight": 0}, "weight"),
        ("smtp://h.test", {"helo": "a\r\nMAIL"}, "helo"),
        ("smtp://h.test", {"helo": "[1.2.3.999]"}, "helo"),
        ("smtp://h.test", {"site": "two words"}, "site"),
        ("smtp://h.test", {"name": " "}, "name"),
        ("smtp://h.test", {"signed_headers": ["Subject"]}, "signed_headers"),
        ("smtp://h.test", {"signed_headers": ["From", "A: b"]}, "signed_headers"),
        ("smtp://h.test", {"source": []}, "source"),
        ("smtp://h.test", {"source": ["here.test"]}, "source"),
        ("smtp://h.test", {"source": ["192.0.2.1", "192.0.2.2"]}, "source"),
        ("smtp://h.test", {"port": 2525}, "port"),
        ("smtp://h.test", {"allow_private": False}, "allow_private"),
        ("smtp://h.test", {"destination_connections": 3}, "destination_connections"),
        ("mx:2525", {}, "url"),
        ("mx://good.test", {}, "url"),
        ("mx", {"port": 0}, "port"),
        ("mx", {"username": "me"}, "username"),
        ("mx", {"password": "pw"}, "password"),
        ("mx", {"auth": "PLAIN"}, "auth"),
        ("mx", {"tls": "sometimes"}, "tls"),
        ("mx", {"destination_connections": 0}, "destination_connections"),
        ("mx", {"warmup": []}, "warmup"),
        ("mx", {"warmup": [10, 0]}, "warmup"),
        ("mx", {"warmup": [True]}, "warmup"),
        ("mx", {"warmup": [1] * 366}, "warmup"),
        ("mx", {"warmup_from": "2026-11-25"}, "warmup_from"),
        ("mx", {"warmup": [1], "warmup_from": "tomorrow"}, "warmup_from"),
        ("mx", {"warmup": [1], "warmup_from": "1969-12-31"}, "warmup_from"),
        ("mx", {"warmup": [1], "warmup_from": "0001-01-01T00:00:00+23:59"}, "warmup_from"),
        ("mx", {"probe": False}, "probe"),
        ("mx", {"probe_sender": "a@me.test"}, "probe_sender"),
        ("smtp://h.test", {"warmup": [10]}, "warmup"),
        ("smtp://h.test", {"warmup_from": "2026-11-25"}, "warmup_from"),
        ("smtp://h.test", {"probe_sender": "nobody"}, "probe_sender"),
        ("smtp://h.test", {"probe_sender": "a@me.test\r\nRCPT TO:<b@x.test>"}, "probe_sender"),
        ("smtp://h.test", {"state": "asleep"}, "state"),
        ("smtp://h.test", {"messages_per_second": 0}, "messages_per_second"),
        ("smtp://h.test", {"messages_per_minute": -1}, "messages_per_minute"),
        ("smtp://h.test", {"messages_per_day": 10**12}, "messages_per_day"),
        ("smtp://h.test", {"messages_per_connection": 1.5}, "messages_per_connection"),
    ],
)
def test_bad_value_is_refused_by_its_field(url: str, given: dict[str, Any], field: str) -> None:
    with pytest.raises((Invalid, Missing)) as refused:
        _form(url, **given)
    assert refused.value.field == field


@pytest.mark.parametrize("url", ["mx", "MX"])
def test_direct_delivery_is_a_relay_without_host_and_login(url: str) -> None:
    form = _form(url)
    assert (form.name, form.host, form.port, form.password) == ("mx", "mx", 25, None)
    assert form.settings == {
        "kind": "mx", "tls": "opportunistic", "allow_private": False, "weight": 1,
        "eight_bit": False,
    }  # fmt: skip


def test_options_of_direct_delivery_are_kept_as_they_were_given() -> None:
    form = _form(
        url="mx", name="Second", port=2525, tls="verify", helo="out2.me.test", connections=50,
        destination_connections=3, allow_private=True, source=["192.0.2.1", "2001:DB8::1"],
    )  # fmt: skip
    assert (form.name, form.port) == ("Second", 2525)
    assert form.settings == {
        "kind": "mx", "tls": "verify", "allow_private": True, "weight": 1, "eight_bit": False,
        "helo": "out2.me.test", "connections": 50, "destination_connections": 3,
        "source": ["192.0.2.1", "2001:db8::1"],
    }  # fmt: skip


@settings(max_examples=200)
@given(st.text(max_size=12), st.text(max_size=12))
def test_neither_refusal_nor_repr_repeats_a_password(before: str, after: str) -> None:
    """Whatever stands unescaped in it, and so wherever the URL seems to be split."""
    try:
        said = repr(_form(f"smtp://me:{before}canary{after}@h.test"))
    except Refusal as refusal:
        said = refusal.message
    assert "canary" not in said


@pytest.mark.parametrize(
    "url", ["smtp://me:pw@h.test", "smtps://me:pw@h.test", "smtps://h.test", "me:pw@192.0.2.1"]
)
def test_whoever_answers_for_the_relay_gets_no_password_unless_it_proves_its_name(url: str) -> None:
    assert _form(url).settings["tls"] == "verify"
    assert _form(url, tls="require").settings["tls"] == "require"


def test_password_in_clear_over_a_network_takes_the_operators_word() -> None:
    assert _form("smtp://me:pw@h.test", tls="none").settings["tls"] == "none"


def test_options_are_kept_as_they_were_given() -> None:
    form = _form(
        "smtp://me:pw@h.test", auth="xoauth2", helo="[192.0.2.1]", site="fra-1", weight=9,
        connections=3, eight_bit=True, signed_headers=["From", "Subject", "from"], name="Main",
    )  # fmt: skip
    assert form.name == "Main"
    assert form.settings == {
        "implicit_tls": False, "tls": "verify", "weight": 9, "eight_bit": True, "username": "me",
        "auth": "XOAUTH2", "helo": "[192.0.2.1]", "site": "fra-1", "connections": 3,
        "signed_headers": ["from", "subject"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "name"),
    [("h.test", "h.test"), ("h.test:2525", "h.test:2525"), ("[::1]:2525", "[::1]:2525")],
)
def test_relay_without_a_name_is_called_by_its_host(url: str, name: str) -> None:
    assert _form(url).name == name


# --- what becomes of it -----------------------------------------------------------------------


def test_password_reaches_delivery_and_nobody_else(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.relays.add(ANA, NewRelay(url="smtp://me:hunter2canary@h.test"))
        shown = json.dumps(view.as_json()) + repr(await house.store.audit(limit=100))
        assert "hunter2canary" not in shown + repr(await house.store.relays())
        assert view.as_json()["has_password"] is True
        relay = house.relays.load(house.directory.now.relays[0])
        assert (relay.username, relay.password) == ("me", "hunter2canary")
        assert (relay.tls, relay.connections, relay.port) == (TlsPolicy.VERIFY, 20, 587)
        assert "hunter2canary" not in repr(relay)

    _run(tmp_path, work)
    files = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert not any(b"hunter2canary" in file for file in files)


def test_relay_is_loaded_with_all_its_settings(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.relays.add(
            ANA,
            NewRelay(
                url="smtps://h.test", name="Main", tls="verify", connections=3, weight=2,
                helo="me.test", site="fra", eight_bit=True, signed_headers=["From", "Subject"],
                messages_per_connection=50, messages_per_second=5, messages_per_minute=100,
                messages_per_day=1000, probe=False, probe_sender="p@me.test", state="draining",
            ),
        )  # fmt: skip
        assert house.relays.load(house.directory.now.relays[0]) == Relay(
            id=view.row.id, name="Main", host="h.test", port=465, implicit_tls=True,
            tls=TlsPolicy.VERIFY, helo="me.test", connections=3, weight=2, site="fra",
            signed_headers=("from", "subject"), eight_bit=True, messages_per_connection=50,
            messages_per_second=5, messages_per_minute=100, messages_per_day=1000, probe=False,
            probe_sender="p@me.test", state=RelayState.DRAINING,
        )  # fmt: skip

    _run(tmp_path, work)


def test_direct_delivery_is_loaded_with_room_for_many_destinations(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.relays.add(
            ANA, NewRelay(url="mx", source=["192.0.2.1"], allow_private=True)
        )
        assert view.as_json()["kind"] == "mx"
        relay = house.relays.load(house.directory.now.relays[0])
        assert relay == Relay(
            id=view.row.id, name="mx", host="mx", kind=RelayKind.MX, connections=100,
            destination_connections=20, source=("192.0.2.1",), allow_private=True,
        )  # fmt: skip
        assert repr(relay) == "<Relay mx mx:25>"
        with pytest.raises(Conflict):
            await house.relays.add(ANA, NewRelay(url="mx"))
        second = await house.relays.add(ANA, NewRelay(url="mx", name="mx2", connections=7))
        rows = {row.id: house.relays.load(row) for row in house.directory.now.relays}
        assert rows[second.row.id].connections == 7

    _run(tmp_path, work)


def test_password_that_cannot_be_read_disables_its_relay_alone(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.relays.add(ANA, NewRelay(url="smtp://me:pw@broken.test"))
        await house.relays.add(ANA, NewRelay(url="smtp://fine.test"))
        other = Sealer(MasterKey(bytes(32)))
        other.add(1, 1, other.new_data_key(1))
        house.relays._sealer = other
        by_name = {row.name: house.relays.load(row) for row in house.directory.now.relays}
        assert by_name["broken.test"].state is RelayState.DISABLED
        assert by_name["fine.test"].state is RelayState.ENABLED
        assert alarm("relay_unusable:broken.test").raised
        assert not alarm("relay_unusable:fine.test").raised
        house.relays._sealer = house.sealer
        loaded = [house.relays.load(row) for row in house.directory.now.relays]
        assert {relay.state for relay in loaded} == {RelayState.ENABLED}
        assert not alarm("relay_unusable:broken.test").raised

    _run(tmp_path, work)


def test_alarm_of_a_relay_ends_with_the_relay(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        here, elsewhere = house.relays, copy(house.relays)  # as two processes have them
        elsewhere._unusable = Unusable("relay")
        ids = [
            (await here.add(ANA, NewRelay(url=f"smtp://me:pw@{name}.test"))).row.id
            for name in ("gone", "last")
        ]
        gone, last = (alarm(f"relay_unusable:{name}.test") for name in ("gone", "last"))
        for relays in (here, elsewhere):
            relays._sealer = Sealer(MasterKey(bytes(32)))
        here.load_all()
        assert (gone.raised, last.raised) == (True, True)
        await here.remove(ANA, ids[0])
        assert (gone.raised, last.raised) == (False, True)
        elsewhere.load_all()
        await house.store.drop("relay", ids[1], actor="t", action="by another process")
        await house.directory.refresh()
        assert last.raised
        assert elsewhere.load_all() == []
        assert not last.raised

    _run(tmp_path, work)


@pytest.mark.parametrize(
    "change",
    [{"tls": "quantum"}, {"connections": "many"}, {"password": "in clear"}, {"later": "setting"}],
)
def test_row_of_another_release_stops_no_process(tmp_path: Path, change: dict[str, Any]) -> None:
    async def work(house: House) -> None:
        row = (await house.relays.add(ANA, NewRelay(url="smtp://odd.test"))).row
        changed = msgspec.structs.replace(row, settings={**row.settings, **change})
        relay = house.relays.load(changed)
        understood = "tls" not in change and "connections" not in change
        assert relay.state is (RelayState.ENABLED if understood else RelayState.DISABLED)
        assert relay.password is None
        alarm("relay_unusable:odd.test").clear()

    _run(tmp_path, work)


def test_relay_is_drained_and_removed(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        id_ = (await house.relays.add(ANA, NewRelay(url="smtp://h.test"))).row.id
        assert (
            await house.relays.change(ANA, id_, RelayFields(state="draining"))
        ).row.state == "draining"
        again = RelayFields(state="draining")  # nothing new: not audited again
        await house.relays.change(ANA, id_, again)
        assert house.relays.get(ANA, id_).as_json()["state"] == "draining"
        assert house.relays.load(house.directory.now.relays[0]).state is RelayState.DRAINING
        asleep: Any = "sleeping"
        with pytest.raises(Invalid):
            await house.relays.change(ANA, id_, RelayFields(state=asleep))
        assert await house.relays.remove(ANA, id_)
        assert not await house.relays.remove(ANA, id_)
        assert house.relays.list(ANA) == []
        with pytest.raises(NotFound):
            house.relays.get(ANA, id_)
        with pytest.raises(NotFound):
            await house.relays.change(ANA, id_, RelayFields(state="enabled"))
        actions = [action for _, action in await house.audited()]
        assert actions[:3] == ["relay.remove", "relay.draining", "relay.add"]

    _run(tmp_path, work)


def test_second_relay_of_one_name_is_refused(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.relays.add(ANA, NewRelay(url="smtp://h.test"))
        with pytest.raises(Conflict) as refused:
            await house.relays.add(ANA, NewRelay(url="smtp://you:pw@h.test"))
        assert refused.value.field == "name"
        await house.relays.add(ANA, NewRelay(url="smtp://you:pw@h.test", name="yours"))
        assert [view.row.name for view in house.relays.list(ANA)] == ["h.test", "yours"]

    _run(tmp_path, work)


@pytest.mark.parametrize(
    "stranger", [SENDER, BOB, CAGED], ids=["sending key", "another project", "sandbox key"]
)
def test_stranger_neither_sees_nor_changes_relays(tmp_path: Path, stranger: Any) -> None:
    async def work(house: House) -> None:
        id_ = (await house.relays.add(ANA, NewRelay(url="smtp://h.test"))).row.id
        with pytest.raises(Forbidden):
            await house.relays.add(stranger, NewRelay(url="smtp://evil.test"))
        with pytest.raises(Forbidden):
            house.relays.list(stranger)
        with pytest.raises(Forbidden):
            house.relays.get(stranger, id_)
        with pytest.raises(Forbidden):
            await house.relays.change(stranger, id_, RelayFields(state="disabled"))
        with pytest.raises(Forbidden):
            await house.relays.remove(stranger, id_)

    _run(tmp_path, work)


def test_shown_relay_has_its_id_as_users_write_it(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        view = await house.relays.add(ANA, NewRelay(url="smtp://h.test"))
        assert view.as_json()["id"] == text(view.row.id)
        assert view.as_json()["connections"] is None

    _run(tmp_path, work)
