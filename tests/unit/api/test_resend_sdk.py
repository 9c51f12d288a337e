"""The official Python SDK, unchanged, against our own listener."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import resend
import uvloop
from resend.exceptions import (
    InvalidApiKeyError,
    MissingRequiredFieldsError,
    ResendError,
    ValidationError,
)

from everpost.api import HttpServer
from everpost.model.message import Content
from tests.unit.api.conftest import Door, email


@pytest.fixture(name="sdk")
def _sdk(door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server, up = HttpServer(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(door.api, [listener], ready=ready))
            await ready.wait()
            up.set()

    thread = threading.Thread(target=lambda: uvloop.run(main()))
    thread.start()
    assert up.wait(10)
    monkeypatch.setattr(resend, "api_url", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(resend, "api_key", door.tokens["full"])
    yield door
    asyncio.run_coroutine_threadsafe(server.shutdown(0), loops[0]).result(10)
    thread.join(10)
    assert not thread.is_alive()


def test_sdk_sends_reads_moves_and_cancels(sdk: Door) -> None:
    params: Any = email(
        cc=["c@good.test"], bcc="b@good.test", reply_to="r@good.test", html="<b>Hi</b>",
        headers={"X-A": "1"}, tags=[{"name": "k", "value": "v"}],
        scheduled_at="2026-11-24T00:00:00Z",
        attachments=[{"filename": "a.bin", "content": list(bytes(range(256))), "content_id": "a"}],
    )  # fmt: skip
    sent = resend.Emails.send(params)
    found: Any = resend.Emails.get(sent["id"])
    assert found["subject"] == "Hello"
    assert found["last_event"] == "scheduled"
    content = msgspec.msgpack.decode(sdk.store.messages_[-1].sealed, type=Content)
    assert content.attachments[0].content == bytes(range(256))
    moved = resend.Emails.update({"id": sent["id"], "scheduled_at": "2026-11-25T00:00:00Z"})
    assert moved["id"] == sent["id"]
    assert resend.Emails.cancel(sent["id"])["id"] == sent["id"]
    assert resend.Emails.list({"limit": 1})["data"][0]["id"] == sent["id"]


def test_sdk_repeats_safely(sdk: Door) -> None:
    params: Any = email()
    first = resend.Emails.send(params, {"idempotency_key": "k"})
    assert resend.Emails.send(params, {"idempotency_key": "k"})["id"] == first["id"]
    assert len(sdk.store.messages_) == 1


def test_sdk_sends_batches(sdk: Door) -> None:
    params: Any = [email(), email(to=None), email()]
    with pytest.raises(MissingRequiredFieldsError):
        resend.Batch.send(params)
    answer = resend.Batch.send(params, {"batch_validation": "permissive"})
    assert len(answer["data"]) == 2
    assert answer["errors"][0]["index"] == 1


def test_sdk_raises_its_own_classes(sdk: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Any = email(to="nobody")
    stranger: Any = email(sender="x@stranger.test")
    with pytest.raises(ValidationError):
        resend.Emails.send(wrong)
    with pytest.raises(ResendError, match="domain"):
        resend.Emails.send(stranger)
    with pytest.raises(ResendError) as missing:
        resend.Emails.get("no-such-id")
    assert missing.value.error_type == "not_found"
    monkeypatch.setattr(resend, "api_key", "ep_wrong")
    with pytest.raises(InvalidApiKeyError):
        resend.Emails.send(wrong)


def test_sdk_manages_domains_and_keys(sdk: Door) -> None:
    domain: Any = resend.Domains.create({"name": "sdk.test"})
    assert domain["records"]
    assert resend.Domains.get(domain["id"])["name"] == "sdk.test"
    assert resend.Domains.verify(domain["id"])["id"] == domain["id"]
    assert "sdk.test" in [each["name"] for each in resend.Domains.list()["data"]]
    assert resend.Domains.remove(domain["id"])["deleted"] is True
    key: Any = resend.ApiKeys.create({"name": "sdk", "permission": "sending_access"})
    assert key["token"]
    assert key["id"] in [each["id"] for each in resend.ApiKeys.list()["data"]]
    resend.ApiKeys.remove(key["id"])
