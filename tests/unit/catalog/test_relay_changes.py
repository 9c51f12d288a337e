"""Relays that are changed: what stays, what goes, where a password may go."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.catalog.fields import NewPool, NewRelay, NewRoute, RelayFields
from everpost.catalog.relay_form import change_form, described, read_form
from everpost.catalog.relays import changed_row, new_row
from everpost.ids import text
from everpost.model.errors import Conflict, Invalid, Refusal
from everpost.security import MasterKey, Sealer
from everpost.store.interface import RelayRow
from tests.support.catalog_house import ANA, House, opened


def _run(folder: Path, work: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as house:
            await work(house)

    asyncio.run(run())


def _sealer() -> Sealer:
    sealer = Sealer(MasterKey(bytes(range(32))))
    sealer.add(1, 1, sealer.new_data_key(1))
    return sealer


SEALER = _sealer()


def _row(url: str, **given: Any) -> RelayRow:
    form = read_form(NewRelay(url=url, **given))
    return new_row(form, id_=bytes(16), now=1_000, sealer=SEALER)


def _changed(row: RelayRow, **given: Any) -> RelayRow:
    form = change_form(row, RelayFields(**given))
    return changed_row(row, form, now=2_000, sealer=SEALER)


LOGIN = "smtp://me:pw@h.test"


def test_a_change_of_one_setting_changes_another() -> None:
    row = _row(LOGIN, helo="me.test", connections=3, source=["192.0.2.1"], probe=False)
    changed = _changed(row, weight=7)
    assert changed.settings == {**row.settings, "weight": 7}
    assert (changed.password, changed.key_id) == (row.password, row.key_id)
    assert _changed(changed, weight=None).settings == {**row.settings, "weight": 1}
    assert "helo" not in _changed(row, helo=None).settings


@pytest.mark.parametrize(
    "row",
    [
        _row(LOGIN), _row("smtps://me:pw@[::1]:26", auth="login", tls="require"),
        _row("smtp://127.0.0.1:25", tls="none", site="a", messages_per_day=9, probe=True),
        _row("mx", port=2525, source=["192.0.2.1"], warmup=[5, 9], warmup_from="2026-11-25"),
        _row("mx", warmup=[5, 9], allow_private=True, destination_connections=3),
    ],
)  # fmt: skip
def test_an_empty_change_changes_something(row: RelayRow) -> None:
    assert _changed(row) == row
    assert _changed(row, **{n: v for n, v in described(row).items() if n != "url"}) == row


@pytest.mark.parametrize(
    "given",
    [
        {"url": "smtp://other.test"},
        {"url": "smtp://me@other.test"},
        {"username": "you"},
        {"url": "smtp://you@h.test"},
        {"url": "smtps://other.test", "password": None},
    ],
)
def test_a_kept_password_goes_to_another_host_or_user(given: dict[str, Any]) -> None:
    row = _row(LOGIN)
    with pytest.raises(Invalid) as refused:
        _changed(row, **given)
    assert refused.value.field == "password"
    again = _changed(row, **{**given, "password": "pw2"})
    assert SEALER.unseal(again.key_id, again.password or b"", context=row.id) == b"pw2"


def test_a_password_that_is_taken_away_is_kept_in_silence() -> None:
    row = _row(LOGIN)
    with pytest.raises(Invalid) as refused:
        _changed(row, password=None)
    assert refused.value.field == "password"
    assert _changed(row, password=None, username=None).password is None
    assert _changed(_row("smtp://h.test"), password=None) == _row("smtp://h.test")


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31", "9999-12-31T23:59:59.999999-23:59", "9999-01-01", "1969-12-31", "0001-01-01"],
)
def test_a_first_day_that_nobody_can_show_is_kept(moment: str) -> None:
    with pytest.raises(Invalid) as refused:
        _row("mx", warmup=[5], warmup_from=moment)
    assert refused.value.field == "warmup_from"
    last = _row("mx", warmup=[5], warmup_from="9998-12-31T23:59:59")
    assert _changed(last, weight=2).settings["warmup_from"] == last.settings["warmup_from"]


def test_a_kept_password_is_lost_with_the_port_or_scheme() -> None:
    row = _row(LOGIN)
    for url in ("smtp://h.test:2525", "smtps://me@h.test", "smtp://me@H.test:587"):
        changed = _changed(row, url=url)
        assert (changed.password, changed.settings["username"]) == (row.password, "me")


def test_a_password_that_is_the_same_is_sealed_anew() -> None:
    row = _row(LOGIN)
    assert _changed(row, password="pw") == row
    assert _changed(row, password="pw2").password != row.password


def test_a_login_that_was_taken_away_is_kept() -> None:
    row = _row(LOGIN, auth="plain")
    for fields in ({"username": None}, {"username": None, "password": None}):
        changed = _changed(row, **fields)
        assert changed.password is None
        assert {"username", "auth"}.isdisjoint(changed.settings)


@pytest.mark.parametrize(
    ("row", "given", "tls"),
    [
        (_row("smtp://me:pw@127.0.0.1"), {"url": "smtp://h.test", "password": "x"}, "verify"),
        (_row("smtp://h.test"), {"username": "me", "password": "x"}, "verify"),
        (_row("smtp://h.test", tls="verify"), {"url": "smtp://127.0.0.1"}, "verify"),
        (_row("smtp://h.test", tls="none"), {"url": "smtps://h.test"}, "verify"),
        (_row(LOGIN, tls="none"), {"password": "x"}, "none"),
        (_row(LOGIN, tls="require"), {"url": "smtps://h.test", "tls": None}, "verify"),
        (_row(LOGIN), {"url": "smtp://h.test:26", "tls": "require"}, "require"),
    ],
)
def test_a_new_address_makes_a_password_travel_in_clear(
    row: RelayRow, given: dict[str, Any], tls: str
) -> None:
    assert _changed(row, **given).settings["tls"] == tls


def test_a_relay_becomes_another_kind() -> None:
    for row, url in ((_row("smtp://h.test"), "mx"), (_row("mx"), "smtp://h.test")):
        with pytest.raises(Invalid) as refused:
            _changed(row, url=url)
        assert refused.value.field == "url"


def test_a_warm_up_begins_again_though_its_plan_stays() -> None:
    row = _row("mx", warmup=[10, 20])
    assert row.settings["warmup_from"] == 1_000
    assert _changed(row, weight=2).settings["warmup_from"] == 1_000
    assert _changed(row, warmup=[10, 20]).settings["warmup_from"] == 1_000
    assert _changed(row, warmup=[10, 30]).settings["warmup_from"] == 2_000
    moved = _changed(row, warmup_from="2026-11-25")
    assert moved.settings["warmup_from"] == 1_795_564_800_000
    assert {"warmup", "warmup_from"}.isdisjoint(
        _changed(row, warmup=None, warmup_from=None).settings
    )


def test_nothing_of_what_was_said_is_shown_by_repr() -> None:
    shown = repr(NewRelay(url="smtp://me:canary@h.test", password="canary"))
    assert "canary" not in shown
    assert "password" in shown


_TEXT = st.one_of(st.none(), st.text(max_size=20))
_COUNT = st.one_of(st.none(), st.integers())
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": _TEXT, "username": _TEXT, "password": _TEXT, "helo": _TEXT, "auth": _TEXT,
    "site": _TEXT, "weight": _COUNT, "connections": _COUNT, "port": _COUNT,
    "messages_per_second": _COUNT, "warmup_from": _TEXT, "probe_sender": _TEXT,
    "url": st.one_of(st.just("mx"), st.text(max_size=30), st.just("smtp://x.test")),
    "source": st.lists(st.text(max_size=9), max_size=3),
    "signed_headers": st.lists(st.text(max_size=9), max_size=3),
    "warmup": st.lists(st.integers(), max_size=3),
    "tls": st.sampled_from([None, "none", "opportunistic", "require", "verify"]),
}  # fmt: skip


@settings(max_examples=150)
@given(st.sampled_from([_row(LOGIN), _row("mx"), _row("smtp://h.test")]),
       st.fixed_dictionaries({}, optional=_FIELDS))  # fmt: skip
def test_a_change_is_neither_kept_nor_refused(row: RelayRow, given_: dict[str, Any]) -> None:
    """Whatever is asked: a refusal, or a row that a further empty change leaves as it is."""
    try:
        changed = _changed(row, **given_)
    except Refusal as refusal:
        blamed = refusal.field
    else:
        assert _changed(changed) == changed
        return
    # A login is judged as a whole: the field that lacks may be one that nobody spoke of.
    assert blamed in {*given_, "password", "username", "url"}


# --- in the store -----------------------------------------------------------------------------


def test_a_change_is_audited_as_what_it_is_and_only_once(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        id_ = (await house.relays.add(ANA, NewRelay(url="smtp://h.test"))).row.id
        await house.relays.add(ANA, NewRelay(url="smtp://other.test"))
        for fields in (
            RelayFields(weight=3), RelayFields(weight=3), RelayFields(state="disabled"),
            RelayFields(state="enabled", name="main"),
        ):  # fmt: skip
            await house.relays.change(ANA, id_, fields)
        actions = [action for _, action in await house.audited()]
        assert actions[:3] == ["relay.change", "relay.disabled", "relay.change"]
        assert actions[3:] == ["relay.add", "relay.add", "test"]
        with pytest.raises(Conflict) as refused:
            await house.relays.change(ANA, id_, RelayFields(name="other.test"))
        assert refused.value.field == "name"

    _run(tmp_path, work)


def test_a_removed_relay_stays_in_its_pools(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        a, b = [
            (await house.relays.add(ANA, NewRelay(url=f"smtp://{n}.test"))).row.id for n in "ab"
        ]
        both = await house.pools.add(ANA, NewPool(name="both", tiers=[["a.test"], ["b.test"]]))
        await house.pools.add(ANA, NewPool(name="idle", tiers=[["a.test"]]))
        before = await house.store.revision()
        assert await house.relays.remove(ANA, a)
        assert [action for _, action in await house.audited()][:3] == [
            "relay.remove", "pool.change", "pool.change",
        ]  # fmt: skip
        assert await house.store.revision() == before + 3
        rows = {row.name: row.settings["tiers"] for row in await house.store.pools()}
        assert rows == {"both": [[text(b)]], "idle": []}
        await house.routes.add(ANA, NewRoute(name="r", pool="both"))
        with pytest.raises(Conflict, match=r"both would be left without a relay.*route r"):
            await house.relays.remove(ANA, b)
        assert [relay.row.id for relay in house.relays.list(ANA)] == [b]
        assert house.pools.get(ANA, both.id).settings["tiers"] == [[text(b)]]

    _run(tmp_path, work)
