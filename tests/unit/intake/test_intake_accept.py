"""Accepting: the answer that is given, and the key that makes it the same one again."""

import asyncio
import hashlib

import msgspec
import pytest

from everpost import telemetry
from everpost.intake import DraftAttachment, Prepared, check_key, fingerprint
from everpost.model.errors import Conflict, Invalid, Unavailable
from everpost.security import NoDataKey
from tests.support.hostile import Hostile, rows

from .conftest import NOW, Desk, draft


def _accept(
    desk: Desk, *, count: int = 1, key: str | None = None, body: bytes = b"a", answer: bytes = b"1"
) -> bytes:
    prepared = [Prepared(desk.prepare(draft())) for _ in range(count)]
    receipt = asyncio.run(
        desk.intake.accept(
            desk.credential,
            prepared,
            key=key,
            fingerprint=fingerprint("POST /emails", body),
            answer=answer,
        )
    )
    return receipt.answer


def test_a_batch_is_written_whole_and_answered(desk: Desk) -> None:
    assert _accept(desk, count=3, answer=b"yes") == b"yes"
    assert len(desk.store.messages) == 3


def test_a_repeated_request_gets_the_first_answer_and_no_second_mail(desk: Desk) -> None:
    assert _accept(desk, key="k", answer=b"first") == b"first"
    assert _accept(desk, key="k", answer=b"second") == b"first"
    assert len(desk.store.messages) == 1


def test_the_same_key_for_another_request_is_a_conflict(desk: Desk) -> None:
    _accept(desk, key="k", body=b"one")
    with pytest.raises(Conflict) as refusal:
        _accept(desk, key="k", body=b"two")
    assert refusal.value.name == "invalid_idempotent_request"
    assert len(desk.store.messages) == 1


def test_a_key_of_another_tenant_is_another_key(desk: Desk) -> None:
    _accept(desk, key="k", body=b"one", answer=b"ours")
    desk.credential = msgspec.structs.replace(desk.credential, project=2)
    desk.catalog(
        domains={
            "example.com": msgspec.structs.replace(
                desk.directory.now.domains["example.com"], project=2
            )
        }
    )
    assert _accept(desk, key="k", body=b"two", answer=b"theirs") == b"theirs"


def test_a_key_is_remembered_for_a_day(desk: Desk) -> None:
    _accept(desk, key="k")
    assert desk.store.keys[1, "k"].expires_at == NOW + 86_400_000


def test_without_a_key_nothing_is_remembered(desk: Desk) -> None:
    _accept(desk)
    _accept(desk)
    assert (len(desk.store.messages), desk.store.keys) == (2, {})


def test_a_full_disk_is_an_answer_to_try_again(desk: Desk) -> None:
    desk.store.full = True
    with pytest.raises(Unavailable) as refusal:
        _accept(desk, key="k")
    assert refusal.value.retry_after >= 1
    assert (desk.store.messages, desk.store.keys) == ([], {})


@pytest.mark.parametrize("row", rows("idempotency_key"), ids=str)
def test_a_hostile_key_is_refused(row: Hostile) -> None:
    if row.result is not None:
        check_key(row.value)
        return
    with pytest.raises(Invalid) as refusal:
        check_key(row.value)
    assert refusal.value.name == "invalid_idempotency_key"


def test_fingerprints_tell_endpoint_and_body_apart() -> None:
    seen = {fingerprint(e, b) for e in ("a", "ab", "") for b in (b"", b"b", b"\0b", b"bc")}
    assert len(seen) == 12
    assert fingerprint("a", b"b") == hashlib.sha256(b"a\0b").digest()


def test_while_a_data_key_is_replaced_no_message_has_two(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = desk.sealer.seal

    def rotating(project: int, plaintext: bytes, *, context: bytes) -> tuple[int, bytes]:
        desk.sealer.key += 1
        return seal(project, plaintext, context=context)

    monkeypatch.setattr(desk.sealer, "seal", rotating)
    large = DraftAttachment(filename="a", content=b"x" * 70_000)
    with pytest.raises(Unavailable):
        desk.prepare(draft(attachments=(large,)))


def test_a_project_without_its_key_is_refused_for_now_and_an_operator_hears(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keyless(project: int, plaintext: bytes, *, context: bytes) -> tuple[int, bytes]:
        raise NoDataKey("project 1 has no data key")

    alarm = telemetry.alarm("content_cannot_be_sealed")
    with monkeypatch.context() as patch:
        patch.setattr(desk.sealer, "seal", keyless)
        with pytest.raises(Unavailable):
            desk.prepare(draft())
        assert alarm.raised
    desk.prepare(draft())
    assert not alarm.raised
