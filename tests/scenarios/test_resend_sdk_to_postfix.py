"""The main job on real input: the official `resend` SDK, unchanged, through a running server to a
real Postfix, byte-correct and signed."""

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
import resend
import resend.exceptions

from tests.support.dkim_verifiers import verify_dkimpy, verify_opendkim
from tests.support.house import KEY, House, dkim_records
from tests.support.postfix import Postfix

TRACE = (b"Return-Path:", b"X-Original-To:", b"Delivered-To:", b"Received:", b"\t", b" ")
PNG = bytes.fromhex("89504e470d0a1a0a") + bytes(range(256)) * 40


class Setting:
    """A server, a Postfix behind it, and the records of the signing domain."""

    def __init__(self, house: House, mx: Postfix, records: dict[str, str]) -> None:
        self.house = house
        self.mx = mx
        self.records = records

    def arrived(self, id_: str) -> bytes:
        """The message with this id as it was handed over: Postfix's own trace lines removed."""
        token = f"{id_}@".encode()
        return _untraced(self.mx.wait_for(lambda m: token in m))

    def parsed(self, id_: str) -> EmailMessage:
        message = email.message_from_bytes(self.arrived(id_), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        return message


def _untraced(raw: bytes) -> bytes:
    """Maildir lines end in LF; what went over the wire ended in CRLF."""
    lines = raw.split(b"\n")
    while lines[0].startswith(TRACE):
        del lines[0]
    return b"\r\n".join(lines)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    top = tmp_path_factory.mktemp("sdk")
    with Postfix() as mx, House(top / "d") as house:
        house.relay(mx.url, tls="none")
        domain = house.domain()
        yield Setting(house, mx, dkim_records(domain))


@pytest.fixture(autouse=True)
def sdk(setting: Setting) -> None:
    resend.api_url = setting.house.url
    resend.api_key = KEY


def test_a_plain_send_arrives_and_verifies_twice(setting: Setting) -> None:
    sent = resend.Emails.send(
        {
            "from": "Ada Lovelace <ada@example.test>",
            "to": ["bob@receiver.test"],
            "subject": "Grüße aus 上海 🚀",
            "html": "<p>Hello <b>world</b> — ünïcödé</p>",
            "text": ".leading dot\n..two\nFrom the start\nünïcödé 🚀\n",
        }
    )
    raw = setting.arrived(sent["id"])
    verify_dkimpy(raw, setting.records)
    verify_opendkim(raw, setting.records)
    message = setting.parsed(sent["id"])
    assert message["Subject"] == "Grüße aus 上海 🚀"
    assert message["From"] == "Ada Lovelace <ada@example.test>"
    text = message.get_body(("plain",))
    html = message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert (
        text.get_content().replace("\r\n", "\n")
        == ".leading dot\n..two\nFrom the start\nünïcödé 🚀\n"
    )
    assert html.get_content().rstrip("\r\n") == "<p>Hello <b>world</b> — ünïcödé</p>"
    shown = resend.Emails.get(sent["id"])
    setting.house.wait_status(sent["id"], "delivered")
    assert resend.Emails.get(sent["id"])["last_event"] == "delivered"
    assert shown["subject"] == "Grüße aus 上海 🚀"


def test_every_signature_is_there_and_good(setting: Setting) -> None:
    sent = resend.Emails.send(
        {
            "from": "ada@example.test",
            "to": "bob@receiver.test",
            "subject": "Signed twice",
            "text": "x\n",
        }
    )
    message = setting.parsed(sent["id"])
    algorithms = [str(s).replace(" ", "") for s in message.get_all("DKIM-Signature", [])]
    assert any("a=rsa-sha256" in a for a in algorithms)
    assert any("a=ed25519-sha256" in a for a in algorithms)


def test_cc_bcc_reply_to_headers_and_tags(setting: Setting) -> None:
    sent = resend.Emails.send(
        {
            "from": "ada@example.test",
            "to": ["one@receiver.test", '"Two, Jr." <two@receiver.test>'],
            "cc": ["three@receiver.test"],
            "bcc": ["hidden@receiver.test", "one@receiver.test"],
            "reply_to": ["answers@example.test"],
            "subject": "All the lists",
            "text": "x\n",
            "headers": {"X-Campaign": "spring", "List-Unsubscribe": "<https://example.test/u>"},
            "tags": [{"name": "kind", "value": "test"}],
        }
    )
    setting.house.wait_status(sent["id"], "delivered")
    token = f"{sent['id']}@".encode()
    copies = [m for m in setting.mx.wait(4) if token in m]
    reached = sorted(
        line.split(b": ")[1] for m in copies for line in m.split(b"\n")
        if line.startswith(b"X-Original-To")
    )  # fmt: skip
    assert reached == [
        b"hidden@receiver.test", b"one@receiver.test", b"three@receiver.test", b"two@receiver.test",
    ]  # fmt: skip
    assert all(b"hidden" not in _untraced(m) for m in copies)
    message = setting.parsed(sent["id"])
    assert message["Bcc"] is None
    assert message["Reply-To"] == "answers@example.test"
    assert message["X-Campaign"] == "spring"
    assert [a.display_name for a in message["To"].addresses] == ["", "Two, Jr."]
    assert resend.Emails.get(sent["id"])["bcc"] == ["hidden@receiver.test"]


def test_attachments_come_back_byte_for_byte(setting: Setting) -> None:
    big = bytes(range(256)) * 1024  # large enough to be stored as a shared part
    sent = resend.Emails.send(
        {
            "from": "ada@example.test",
            "to": "bob@receiver.test",
            "subject": "Files",
            "html": '<img src="cid:logo">',
            "attachments": [
                {"filename": "Ünïcode 文件.bin", "content": list(big)},
                {"filename": "logo.png", "content": list(PNG), "content_id": "logo"},
            ],
        }
    )
    raw = setting.arrived(sent["id"])
    verify_dkimpy(raw, setting.records)
    message = setting.parsed(sent["id"])
    parts = {p.get_filename(): p for p in message.walk() if p.get_filename()}
    assert parts["Ünïcode 文件.bin"].get_payload(decode=True) == big
    assert parts["logo.png"].get_payload(decode=True) == PNG
    assert parts["logo.png"]["Content-ID"] == "<logo>"
    assert parts["logo.png"].get_content_disposition() == "inline"
    assert parts["logo.png"].get_content_type() == "image/png"


def test_a_batch_is_accepted_as_one(setting: Setting) -> None:
    answer = resend.Batch.send(
        [
            {
                "from": "ada@example.test",
                "to": [f"user{n}@receiver.test"],
                "subject": f"Batch {n}",
                "text": "x\n",
            }
            for n in range(20)
        ]
    )
    ids = [each["id"] for each in answer["data"]]
    assert len(set(ids)) == 20
    for id_ in ids:
        setting.house.wait_status(id_, "delivered")
    assert setting.parsed(ids[7])["Subject"] == "Batch 7"


def test_the_same_idempotency_key_twice_sends_once(setting: Setting) -> None:
    params: resend.Emails.SendParams = {
        "from": "ada@example.test",
        "to": "bob@receiver.test",
        "subject": "Once",
        "text": "x\n",
    }
    first = resend.Emails.send(params, {"idempotency_key": "order-17"})
    second = resend.Emails.send(params, {"idempotency_key": "order-17"})
    assert first["id"] == second["id"]
    with pytest.raises(resend.exceptions.ResendError) as refused:
        resend.Emails.send({**params, "subject": "Twice"}, {"idempotency_key": "order-17"})
    assert int(refused.value.code) == 409


def test_schedule_update_and_cancel(setting: Setting) -> None:
    sent = resend.Emails.send(
        {
            "from": "ada@example.test",
            "to": "bob@receiver.test",
            "subject": "Later",
            "text": "x\n",
            "scheduled_at": "in 3 days",
        }
    )
    assert resend.Emails.get(sent["id"])["last_event"] == "scheduled"
    updated = resend.Emails.update({"id": sent["id"], "scheduled_at": "tomorrow at 9am"})
    assert updated["id"] == sent["id"]
    cancelled = resend.Emails.cancel(sent["id"])
    assert cancelled["id"] == sent["id"]
    assert resend.Emails.get(sent["id"])["last_event"] == "canceled"


def test_the_list_pages_newest_first(setting: Setting) -> None:
    ids = [
        resend.Emails.send(
            {
                "from": "ada@example.test",
                "to": "bob@receiver.test",
                "subject": f"Page {n}",
                "text": "x\n",
            }
        )["id"]
        for n in range(3)
    ]
    page = resend.Emails.list({"limit": 2})
    assert [e["id"] for e in page["data"]] == [ids[2], ids[1]]
    assert page["has_more"]
    after = resend.Emails.list({"limit": 1, "after": ids[1]})
    assert [e["id"] for e in after["data"]] == [ids[0]]


def test_refusals_become_the_sdks_own_exceptions(setting: Setting) -> None:
    good: resend.Emails.SendParams = {
        "from": "ada@example.test",
        "to": "bob@receiver.test",
        "subject": "x",
        "text": "x",
    }
    with pytest.raises(resend.exceptions.ResendError) as refused:
        resend.Emails.send({**good, "to": "not an address"})
    assert int(refused.value.code) == 422
    assert "`to`" in str(refused.value)
    with pytest.raises(resend.exceptions.ResendError) as refused:
        resend.Emails.send({**good, "from": "ada@stranger.test"})
    assert int(refused.value.code) == 403
    resend.api_key = "ep_wrong0000000_" + "x" * 43
    with pytest.raises(resend.exceptions.ResendError) as refused:
        resend.Emails.send(good)
    assert int(refused.value.code) == 403
