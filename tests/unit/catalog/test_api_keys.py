"""API keys that are managed."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from everpost.access import Access
from everpost.catalog import api_key_json
from everpost.ids import text
from everpost.model.credential import SENDING_ACCESS
from everpost.model.errors import Conflict, Forbidden, Invalid, Missing, Unauthorized
from tests.support.catalog_house import ANA, BOB, House, opened

SENDER = msgspec.structs.replace(ANA, permission=SENDING_ACCESS)
CHOSEN = "the-operators-own-token-0123"


def _run(folder: Path, work: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as house:
            await work(house)

    asyncio.run(run())


def test_key_works_at_once_and_ends_at_once(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        access = Access(house.directory, house.time)
        row, token = await house.keys.create(ANA, " shop ")
        assert (row.name, row.project, row.permission) == ("shop", 1, "full_access")
        assert access.authenticate(token).key == row.id
        assert house.keys.list(ANA) == [row]
        assert await house.keys.revoke(ANA, row.id)
        with pytest.raises(Unauthorized):
            access.authenticate(token)
        assert house.keys.list(ANA) == []
        assert not await house.keys.revoke(ANA, row.id)
        kept = [r for r in await house.store.api_keys() if r.id == row.id]
        assert kept[0].revoked_at == house.time.now()
        assert (await house.audited())[:2] == [
            ("key:ana", "api_key.revoke"),
            ("key:ana", "api_key.create"),
        ]

    _run(tmp_path, work)


def test_token_is_nowhere_but_in_the_answer(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        row, token = await house.keys.create(ANA, "shop")
        secret = token[16:]
        stored = repr(await house.store.api_keys()) + repr(await house.store.audit(limit=100))
        assert secret not in stored + json.dumps(api_key_json(row))
        secrets.append(secret)

    secrets: list[str] = []
    _run(tmp_path, work)
    files = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert not any(secrets[0].encode() in file for file in files)


def test_chosen_token_works_and_is_never_taken_twice(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        row, token = await house.keys.create(ANA, "first", token=CHOSEN)
        assert token == CHOSEN
        with pytest.raises(Conflict):
            await house.keys.create(ANA, "again", token=CHOSEN)
        await house.keys.revoke(ANA, row.id)
        with pytest.raises(Conflict):  # or a leaked and revoked key would come back to life
            await house.keys.create(ANA, "again", token=CHOSEN)

    _run(tmp_path, work)


def test_other_projects_keys_are_neither_seen_nor_ended(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        row, token = await house.keys.create(ANA, "shop")
        assert house.keys.list(BOB) == []
        assert not await house.keys.revoke(BOB, row.id)
        assert Access(house.directory, house.time).authenticate(token).project == 1

    _run(tmp_path, work)


def test_sending_key_manages_nothing(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        row, _ = await house.keys.create(ANA, "shop")
        with pytest.raises(Forbidden):
            await house.keys.create(SENDER, "mine")
        with pytest.raises(Forbidden):
            house.keys.list(SENDER)
        with pytest.raises(Forbidden):
            await house.keys.revoke(SENDER, row.id)

    _run(tmp_path, work)


def test_sandbox_key_makes_no_key_that_leaves_the_sandbox(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        caged = msgspec.structs.replace(ANA, sandbox=True)
        row, _ = await house.keys.create(caged, "escape", sandbox=False)
        assert row.sandbox
        production, _ = await house.keys.create(ANA, "production")
        with pytest.raises(Forbidden, match="sandbox"):
            await house.keys.revoke(caged, production.id)
        with pytest.raises(Forbidden):
            house.keys.list(caged)
        assert len(house.keys.list(ANA)) == 2

    _run(tmp_path, work)


def test_key_is_restricted_to_a_domain_of_its_own_project(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        domain = (await house.domains.add(ANA, "good.test", signing="unsigned")).row.id
        row, _ = await house.keys.create(ANA, "k", permission=SENDING_ACCESS, domain=domain)
        assert api_key_json(row)["domain_id"] == text(domain)
        for credential, permission in ((ANA, "full_access"), (BOB, SENDING_ACCESS)):
            with pytest.raises(Invalid) as refused:
                await house.keys.create(credential, "k", permission=permission, domain=domain)
            assert refused.value.field == "domain_id"

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("name", "permission", "token", "field"),
    [
        ("", "full_access", None, "name"),
        ("a\r\nb", "full_access", None, "name"),
        ("n" * 101, "full_access", None, "name"),
        ("shop", "admin", None, "permission"),
        ("shop", "full_access", "short", "token"),
    ],
)
def test_bad_value_is_refused_by_its_field(
    tmp_path: Path, name: str, permission: str, token: str | None, field: str
) -> None:
    async def work(house: House) -> None:
        with pytest.raises((Invalid, Missing)) as refused:
            await house.keys.create(ANA, name, permission=permission, token=token)
        assert refused.value.field == field
        assert house.keys.list(ANA) == []

    _run(tmp_path, work)


def test_shown_key_holds_what_resend_shows(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        row, _ = await house.keys.create(ANA, "shop")
        shown = api_key_json(row)
        assert shown["id"] == text(row.id)
        assert shown["created_at"] == "2027-01-15T08:00:00.000+00:00"
        assert "hash" not in shown

    _run(tmp_path, work)
