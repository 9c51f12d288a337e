"""The table of hostile inputs through a whole `everpost serve`: what is refused says why and leaves
nothing behind; what is accepted arrives once, and means to two strangers what was asked for."""

import base64
import http.client
import io
import json
import re
import socket
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.far_end import FarEnd, Received
from tests.support.hostile import (
    EMAIL,
    GOOD,
    PATH_IDS,
    PLACES,
    QUERIES,
    REQUESTS,
    SETTINGS,
    SMUGGLED,
    WIRES,
    Hostile,
    rows,
)
from tests.support.hostile.over_http import emails
from tests.support.house import KEY, House
from tests.support.readers import Mail, read_by_email_mime, read_by_python
from tests.support.waiting import wait_until

OURS = (
    "content-transfer-encoding", "content-type", "date", "from", "message-id", "mime-version",
    "subject", "to",
)  # fmt: skip
"""The header names of a plain message; a multipart has no transfer encoding of its own."""
LISTS = (
    "/emails", "/sandbox", "/domains", "/api-keys", "/relays", "/pools", "/routes", "/audit",
)  # fmt: skip


class Line(NamedTuple):
    """A house, and the only mail server that it may send to."""

    house: House
    far: FarEnd


def _line(folder: Path, *, wide: bool) -> Iterator[Line]:
    extensions = ("PIPELINING", "8BITMIME", "SMTPUTF8") if wide else ("PIPELINING",)
    with FarEnd(extensions=extensions) as far, House(folder / "d") as house:
        house.relay(far.url, tls="none", eight_bit=wide)
        house.domain(signing="unsigned")
        yield Line(house, far)
        assert "http.error" not in house.log.read_text(errors="replace"), house.tail()


@pytest.fixture(name="narrow", scope="module")
def _narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """The far end takes ASCII only."""
    yield from _line(tmp_path_factory.mktemp("narrow"), wide=False)


@pytest.fixture(name="wide", scope="module")
def _wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """The far end takes 8-bit bodies and UTF-8 in addresses and headers."""
    yield from _line(tmp_path_factory.mktemp("wide"), wide=True)


@pytest.fixture(name="line", params=["narrow", "wide"])
def _either(request: pytest.FixtureRequest) -> Line:
    line: Line = request.getfixturevalue(request.param)
    return line


def _accepted(house: House) -> int:
    return int(house.get("/status").json["accepted"])


class Client:
    """One connection that sends bodies as they are."""

    def __init__(self, house: House) -> None:
        self._connection = http.client.HTTPConnection(house.host, house.port, timeout=30)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        given = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        self._connection.request("POST", "/emails", body, {**given, **(headers or {})})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())


def _raw(house: House, data: bytes) -> tuple[int, bytes]:
    """Send bytes on a connection of their own; the status, and all that came back."""
    with socket.create_connection((house.host, house.port), timeout=30) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65_536):
                answer += piece
        except ConnectionError:  # it may close before it has read all
            pass
    return int(answer[9:12] or 0), answer


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [place for place in PLACES if place != "idempotency_key"])
def test_hostile_value_is_queued_or_its_field_is_not_named(narrow: Line, place: str) -> None:
    before, wrong = _accepted(narrow.house), []
    refused = [(r, *each) for r in rows(place) if r.result is None for each in emails(r)]
    with Client(narrow.house) as client:
        for row, field, email in refused:
            status, answer = client.post(json.dumps(email).encode())
            named = f"`{field}`" if status == 422 else "not valid JSON"
            if status != row.status or named not in answer["message"]:
                wrong.append((str(row), field, status, answer))
    assert not wrong
    assert _accepted(narrow.house) == before


def test_hostile_idempotency_key_is_taken(narrow: Line) -> None:
    before = _accepted(narrow.house)
    body = json.dumps(EMAIL).encode()
    for row in rows("idempotency_key"):
        if row.result is not None or "\r\n" in row.value:
            continue  # a whole line break only begins a header of the caller's own
        head = (
            f"POST /emails HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\nIdempotency-Key: {row.value}\r\n"
        )
        status, answer = _raw(narrow.house, head.encode() + b"\r\n" + body)
        assert status == row.status, (str(row), answer)
    assert _accepted(narrow.house) == before


@pytest.mark.parametrize("row", [row for row in REQUESTS if row.status != 200], ids=str)
def test_hostile_body_is_queued_or_the_answer_does_not_say_why(narrow: Line, row: Any) -> None:
    before = _accepted(narrow.house)
    with Client(narrow.house) as client:
        status, answer = client.post(row.body, dict(row.headers))
    assert (status, row.said in answer["message"]) == (row.status, True), answer
    assert _accepted(narrow.house) == before


def test_hostile_setting_is_kept_or_its_field_is_not_named(narrow: Line) -> None:
    """Of relays, pools and routes, and of what is asked about them."""
    house = narrow.house
    relay = house.get("/relays").json["data"][0]
    house.call("PATCH", f"/relays/{relay['id']}", {"name": "first"})
    house.post("/pools", {"name": "main", "tiers": [["first"]]})
    before = house.get("/audit").json
    wrong = []
    for row in SETTINGS:
        answer = house.post(row.path, {**GOOD[row.path], row.field: row.value})
        if answer.status != 422 or f"`{row.field}" not in answer.json["message"]:
            wrong.append((str(row), answer))
    assert not wrong
    assert house.get("/audit").json == before


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_smuggled_request_is_seen(narrow: Line, wire: Any) -> None:
    status, answer = _raw(narrow.house, wire.data)
    if len(wire.data) < 100_000 or answer:  # else reset while it was still sending
        assert status in wire.statuses, answer
        assert answer.count(b"HTTP/1.1 ") == 1
    assert SMUGGLED.split()[1] not in narrow.house.log.read_bytes()


def _wait_settled(house: House) -> None:
    def settled() -> bool:
        status = house.get("/status").json
        return not status["due"] and not status["states"].get("claimed")

    wait_until(settled, seconds=20, what="all mail to be delivered")


@pytest.mark.parametrize("path", LISTS)
def test_hostile_cursor_is_more_than_a_wrong_cursor(narrow: Line, path: str) -> None:
    """S52: filters and cursors are parameters; what is unknown has no meaning."""
    _wait_settled(narrow.house)  # what is being delivered changes between two looks
    plain = narrow.house.get(path).json
    wrong = []
    for row in QUERIES:
        answer = narrow.house.get(f"{path}?{row.query}")
        if row.fields is None:
            good = answer.status == 200 and answer.json == plain
        else:
            names = row.fields or ("query string",)
            said = answer.json["message"] if answer.status == 422 else ""
            good = any(name in said for name in names)
        if not good:
            wrong.append((str(row), answer))
    assert not wrong


def test_hostile_id_in_a_path_is_more_than_an_unknown_id(narrow: Line) -> None:
    patterns = (
        "/emails/{}", "/emails/{}/recipients", "/emails/{}/events", "/sandbox/{}", "/domains/{}",
        "/relays/{}", "/pools/{}", "/routes/{}",
    )  # fmt: skip
    for pattern in patterns:
        absent = narrow.house.get(pattern.format(uuid.UUID(int=7)))
        for text in PATH_IDS:
            answer = narrow.house.get(pattern.format(text))
            assert (answer.status, answer.json) == (404, absent.json), (pattern, text, answer)


# --- accepted -------------------------------------------------------------------------------------


class Sent(NamedTuple):
    row: Hostile
    id: str


def _send(line: Line, *places: str) -> list[Sent]:
    sent = []
    with Client(line.house) as client:
        for row in rows(*places):
            if row.result is None:
                continue
            ((_, email),) = emails(row)
            status, answer = client.post(json.dumps(email).encode())
            assert status == 200, (str(row), answer)
            sent.append(Sent(row, answer["id"]))
    return sent


def _arrived(line: Line, ids: list[str]) -> dict[str, Received]:
    """The one message of each id, each of them safe to send."""
    for id_ in ids:
        line.house.wait_status(id_, "delivered")
    found: dict[str, Received] = {}
    for message in line.far.complete:
        id_ = message.message_id.partition("@")[0]
        assert id_ not in found, f"{id_} came twice"
        found[id_] = message
        assert message.wire is not None
        _is_safe(message.wire)
    return {id_: found[id_] for id_ in ids}


def _is_safe(wire: bytes) -> None:
    """Nothing that some receiver takes for the end, whatever it takes for a line end."""
    assert wire.endswith(b"\r\n")
    lines = wire.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
    assert all(line.startswith(b"..") for line in lines if line.startswith(b"."))
    assert max(len(line.removeprefix(b".")) for line in lines) <= 998


def _read(line: Line, sent: list[Sent]) -> Iterator[tuple[Hostile, Received, Mail]]:
    """Each message as each of two strangers reads it."""
    arrived = _arrived(line, [each.id for each in sent])
    messages = [arrived[each.id] for each in sent]
    perl = read_by_email_mime([message.data for message in messages])
    assert len(perl) == len(messages)
    for each, message, second in zip(sent, messages, perl, strict=True):
        yield each.row, message, read_by_python(message.data)
        yield each.row, message, second


def _plain_names(mail: Mail, *further: str) -> bool:
    """Whether nothing but our own header fields is there, and `further`."""
    expected = {*OURS, *further}
    return set(mail.names) in (expected, expected - {"content-transfer-encoding"})


def test_accepted_text_ends_the_message_or_begins_another(line: Line) -> None:
    """S2: outbound smuggling in text and HTML, as 7bit, quoted-printable, base64 and 8bit."""
    for row, message, mail in _read(line, _send(line, "body")):
        assert row.result is not None
        expected = row.result.removesuffix("\n")
        assert (mail.text, mail.html) == (expected, expected), str(row)
        assert _plain_names(mail), mail.names
        assert message.recipients == ["to@receiver.test"]
    encodings = {
        encoding
        for message in line.far.complete
        for encoding in re.findall(rb"(?im)^content-transfer-encoding: (\S+)\r$", message.data)
    }
    common = {b"7bit", b"quoted-printable", b"base64"}
    assert encodings >= common
    assert (b"8bit" in encodings) == (b"8BITMIME" in line.far.hello)


def test_accepted_attachment_arrives_with_other_bytes_or_another_name(line: Line) -> None:
    sent = _send(line, "bytes", "content", "filename", "content_id", "content_type")
    for row, _, mail in _read(line, sent):
        (file,) = mail.files
        assert row.result is not None
        assert mail.text == "Hello."
        assert _plain_names(mail), mail.names
        match row.place:
            case "bytes" | "content":
                assert file.content == row.result.encode("latin-1"), str(row)
            case "filename":
                assert file.filename == row.result, str(row)
            case "content_id":
                assert file.content_id == row.result, str(row)
            case _:
                assert file.type == row.result.partition(";")[0], str(row)


def test_accepted_name_subject_or_header_is_read_otherwise(line: Line) -> None:
    sent = _send(line, "name", "quoted_name", "subject", "header_name", "header_value")
    for row, message, mail in _read(line, sent):
        assert row.result is not None
        assert (message.sender.partition("@")[2], message.recipients) == (
            "example.test", ["to@receiver.test"],
        )  # fmt: skip
        match row.place:
            case "subject":
                assert mail.subject == row.result, str(row)
                assert _plain_names(mail), mail.names
            case "header_name":
                assert _plain_names(mail, row.result.lower()), mail.names
            case "header_value":
                assert mail.note == row.result, str(row)
                assert _plain_names(mail, "x-note"), mail.names
            case _:
                assert mail.sender == ((row.result, "sender@example.test"),), str(row)
                assert _plain_names(mail), mail.names


def test_accepted_address_gets_no_mail_or_another_one_does(line: Line) -> None:
    utf8 = b"SMTPUTF8" in line.far.hello
    sent = _send(line, "mailbox")
    reached = [each for each in sent if utf8 or (each.row.result or "").isascii()]
    for row, message, mail in _read(line, reached):
        assert message.recipients == [row.result], str(row)
        assert [address for _, address in mail.to] == [row.result], str(row)
        assert _plain_names(mail), mail.names
    for each in sent:
        if each not in reached:  # SMTPUTF8 only when offered
            line.house.wait_status(each.id, "bounced", "failed")


def test_accepted_tag_or_metadata_comes_back_changed(narrow: Line) -> None:
    for each in _send(narrow, "tag", "metadata"):
        told = narrow.house.get(f"/emails/{each.id}").json
        found = told["tags"][0]["value"] if each.row.place == "tag" else told["metadata"]["k"]
        assert found == each.row.result


@pytest.mark.parametrize("row", [row for row in REQUESTS if row.status == 200], ids=str)
def test_odd_but_good_body_is_refused(narrow: Line, row: Any) -> None:
    with Client(narrow.house) as client:
        status, answer = client.post(row.body, dict(row.headers))
    assert status == 200, answer
    (message,) = _arrived(narrow, [answer["id"]]).values()
    assert message.recipients == EMAIL["to"]
    assert read_by_python(message.data).text == "Hello."


def test_accepted_idempotency_key_sends_twice(narrow: Line) -> None:
    body = json.dumps(EMAIL).encode()
    for row in rows("idempotency_key"):
        if row.result is None:
            continue
        key = {"Idempotency-Key": row.value}
        with Client(narrow.house) as client:
            first = client.post(body, key)
            assert first == client.post(body, key)
            other = client.post(body.replace(b"A test", b"B test"), key)
        assert first[0] == 200
        assert (other[0], other[1]["name"]) == (409, "invalid_idempotent_request")
        _arrived(narrow, [first[1]["id"]])


def test_reader_learns_of_a_hidden_recipient(line: Line) -> None:
    """S8: nobody is told who else got a blind copy, whatever way it was asked for."""
    id_ = line.house.send(
        to=["to@receiver.test"], cc=["cc@receiver.test"],
        bcc=["bcc@receiver.test", "Hidden <bcc@other.test>"],
    )  # fmt: skip
    line.house.wait_status(id_, "delivered")
    copies = [m for m in line.far.complete if m.message_id.startswith(id_)]
    assert sorted(recipient for m in copies for recipient in m.recipients) == [
        "bcc@other.test", "bcc@receiver.test", "cc@receiver.test", "to@receiver.test",
    ]  # fmt: skip
    for copy in copies:
        head = copy.data.partition(b"\r\n\r\n")[0].lower()
        assert b"bcc" not in head
        assert b"hidden" not in head


def test_archive_is_unpacked(narrow: Line) -> None:
    """S28: 40 MB of zeros in a small zip are an attachment like any other."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(40_000_000))
    data = packed.getvalue()
    content = base64.b64encode(data).decode()
    id_ = narrow.house.send(attachments=[{"filename": "42.zip", "content": content}])
    (message,) = _arrived(narrow, [id_]).values()
    (file,) = read_by_python(message.data).files
    assert (file.content, file.type) == (data, "application/zip")
