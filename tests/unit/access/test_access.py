"""Who is recognised, and what that allows."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from everpost.access import OPERATOR, Access, Right, allows, require
from everpost.access import credentials as module
from everpost.model.credential import FULL_ACCESS, SENDING_ACCESS, Credential
from everpost.model.errors import Forbidden, Unauthorized
from everpost.security import secrets
from everpost.store.directory import Directory, Snapshot
from everpost.store.interface import ApiKeyRow, ProjectRow
from tests.support.catalog_house import ANA, House, opened


def _run(folder: Path, work: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as house:
            await work(house)

    asyncio.run(run())


def _refused(access: Access, token: str | None) -> str:
    with pytest.raises(Unauthorized) as refused:
        access.authenticate(token)
    return refused.value.name


async def _change(house: House, row: ApiKeyRow, **fields: object) -> None:
    await house.store.put(
        msgspec.structs.replace(row, **fields),
        actor="test",
        action="test",
    )
    await house.directory.refresh()


def test_known_key_is_recognised_with_all_that_it_carries(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        row, token = await house.keys.create(ANA, "shop", sandbox=True)
        assert Access(house.directory, house.time).authenticate(token) == Credential(
            project=1,
            permission=FULL_ACCESS,
            actor=f"key:{row.public_id}",
            key=row.id,
            sandbox=True,
        )

    _run(tmp_path, work)


@pytest.mark.parametrize("token", [None, ""])
def test_missing_key_is_told_apart_from_a_wrong_one(tmp_path: Path, token: str | None) -> None:
    async def work(house: House) -> None:
        access = Access(house.directory, house.time)
        assert _refused(access, token) == "missing_api_key"
        with pytest.raises(Unauthorized, match="Missing"):
            await access.recognise(token)

    _run(tmp_path, work)


def test_nothing_but_the_very_token_opens(tmp_path: Path) -> None:
    """S43."""

    async def work(house: House) -> None:
        access = Access(house.directory, house.time)
        row, token = await house.keys.create(ANA, "shop")
        for wrong in (
            token[:-1], token + "x", token + " ", " " + token, token.upper(), token.swapcase(),
            token + "\n", token + "\0", "x" * 1_000_000, "\ud800", "ключ", row.public_id,
            row.hash.hex(), f"ep_{row.public_id}_", "Bearer " + token,
        ):  # fmt: skip
            assert _refused(access, wrong) == "invalid_api_key"
        assert access.authenticate(token).key == row.id

    _run(tmp_path, work)


def test_revoked_and_expired_keys_are_refused_like_unknown_ones(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        access = Access(house.directory, house.time)
        messages = set()
        row, token = await house.keys.create(ANA, "shop")
        for fields in ({"revoked_at": house.time.now()}, {"expires_at": house.time.now()}):
            await _change(house, row, **fields)
            with pytest.raises(Unauthorized) as refused:
                access.authenticate(token)
            messages.add((refused.value.message, refused.value.name))
        with pytest.raises(Unauthorized) as refused:
            access.authenticate("ep_unknown")
        assert messages == {(refused.value.message, refused.value.name)}
        await _change(house, row, expires_at=house.time.now() + 1)
        assert access.authenticate(token).key == row.id

    _run(tmp_path, work)


def test_all_refusals_of_a_key_do_the_same_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S44, as counted work: one hash and one comparison, whatever is wrong with the key."""
    calls: list[str] = []
    real_hash, real_equal = secrets.token_hash, secrets.equal

    def hash_(token: str) -> bytes:
        calls.append("hash")
        return real_hash(token)

    def equal(a: bytes, b: bytes) -> bool:
        calls.append("equal")
        return real_equal(a, b)

    monkeypatch.setattr(module, "token_hash", hash_)
    monkeypatch.setattr(module, "equal", equal)

    async def work(house: House) -> None:
        access = Access(house.directory, house.time)
        row, token = await house.keys.create(ANA, "shop")
        await house.keys.revoke(ANA, row.id)
        for wrong in (token, token[:-1] + "_", "ep_none"):
            calls.clear()
            assert _refused(access, wrong) == "invalid_api_key"
            assert calls == ["hash", "equal"]

    _run(tmp_path, work)


def test_key_of_a_sandboxed_project_stays_in_the_sandbox(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        _, token = await house.keys.create(ANA, "shop")
        now = house.directory.now
        project = ProjectRow(1, "default", sandbox=True, created_at=0)
        house.directory.now = msgspec.structs.replace(now, projects={1: project})
        assert Access(house.directory, house.time).authenticate(token).sandbox

    _run(tmp_path, work)


def test_key_that_another_process_has_just_made_is_found(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        theirs = Directory(house.store)  # another process, which has not looked since the start
        await theirs.refresh()
        access = Access(theirs, house.time)
        row, token = await house.keys.create(ANA, "shop")
        assert _refused(access, token) == "invalid_api_key"
        assert (await access.recognise(token)).key == row.id

    _run(tmp_path, work)


def test_guessing_does_not_make_the_store_work(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        class Counting(Directory):
            asked = 0

            async def refresh(self) -> bool:
                self.asked += 1
                return await super().refresh()

        directory = Counting(house.store)
        access = Access(directory, house.time)
        for _ in range(100):
            with pytest.raises(Unauthorized):
                await access.recognise("ep_guess")
        assert directory.asked == 1
        house.time.at += 1000
        with pytest.raises(Unauthorized):
            await access.recognise("ep_guess")
        assert directory.asked == 2

    _run(tmp_path, work)


def test_nobody_is_recognised_before_the_catalog_was_read(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        _, token = await house.keys.create(ANA, "shop")
        house.directory.now = Snapshot()
        assert _refused(Access(house.directory, house.time), token) == "invalid_api_key"

    _run(tmp_path, work)


# --- policy -----------------------------------------------------------------------------------


def test_sending_key_only_sends() -> None:
    sender = Credential(project=1, permission=SENDING_ACCESS, actor="key:x")
    require(sender, Right.SEND)
    for right in set(Right) - {Right.SEND}:
        with pytest.raises(Forbidden) as refused:
            require(sender, right)
        assert refused.value.name == "restricted_api_key"


def test_full_key_and_operator_may_do_all() -> None:
    for credential in (ANA, OPERATOR):
        for right in Right:
            require(credential, right)
    assert OPERATOR.operator
    assert not ANA.operator


def test_permission_of_a_later_release_allows_nothing() -> None:
    later = Credential(project=1, permission="reading_access", actor="key:x")
    assert not any(allows(later, right) for right in Right)
