"""What two strangers read in a message: Python's `email`, and Perl's Email::MIME."""

import base64
import email
import email.policy
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path

__all__ = ["File", "Mail", "read_by_email_mime", "read_by_python"]


@dataclass(frozen=True, slots=True)
class File:
    """An attachment as a reader sees it."""

    filename: str
    type: str
    content_id: str | None
    content: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """A message as a reader sees it. `names` are its header names in lower case, sorted; addresses
    are (display name, addr-spec); bodies have one kind of line end and none at their end."""

    names: tuple[str, ...]
    subject: str
    note: str | None
    sender: tuple[tuple[str, str], ...]
    to: tuple[tuple[str, str], ...]
    text: str | None
    html: str | None
    files: tuple[File, ...]


def read_by_python(data: bytes) -> Mail:
    """By the standard library."""
    if data.isascii():
        message = email.message_from_bytes(data, policy=email.policy.default)
    else:  # the library reads UTF-8 in headers (RFC 6532) from a str only
        head, _, body = data.partition(b"\r\n\r\n")
        text = head.decode() + "\r\n\r\n" + body.decode("ascii", "surrogateescape")
        message = email.message_from_string(text, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    text_part, html_part, files = None, None, []
    for part in message.walk():
        if part.is_multipart():
            continue
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        kind = part.get_content_type()
        if part.get_content_disposition() is not None:
            content_id = part["Content-ID"]
            name = part["Content-Disposition"].params.get("filename", "")
            files.append(
                File(name, kind, None if content_id is None else content_id[1:-1], content)
            )
        elif kind == "text/html":
            html_part = _body(content)
        else:
            text_part = _body(content)
    note = message["X-Note"]
    return Mail(
        names=tuple(sorted(name.lower() for name in message)),
        subject=str(message["Subject"]),
        note=None if note is None else str(note),
        sender=_pairs(message, "From"),
        to=_pairs(message, "To"),
        text=text_part,
        html=html_part,
        files=tuple(files),
    )


def _pairs(message: EmailMessage, name: str) -> tuple[tuple[str, str], ...]:
    """By the older of the library's two readers of addresses; both must find the same ones. (The
    newer one keeps white space between encoded words of a name, against RFC 2047 §6.2.)"""
    raw = next(str(value) for key, value in message.raw_items() if key == name)
    pairs = tuple(
        (str(make_header(decode_header(shown))), address)
        for shown, address in getaddresses([raw.replace("\r\n", "").replace("\n", "")])
    )
    assert [address for _, address in pairs] == [a.addr_spec for a in message[name].addresses]
    return pairs


def read_by_email_mime(messages: Sequence[bytes]) -> list[Mail]:
    """By Perl's Email::MIME, in one process for all of them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.eml" for index in range(len(messages))]
        for path, data in zip(paths, messages, strict=True):
            path.write_bytes(data)
        script = Path(__file__).with_name("read_mail.pl")
        done = subprocess.run(
            ["/usr/bin/perl", str(script), *map(str, paths)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [_mail(line) for line in done.stdout.splitlines()]


def _mail(line: str) -> Mail:
    found = json.loads(line)
    text, html, files = None, None, []
    for part in found["parts"]:
        content = base64.b64decode(part["content"])
        if part["disposition"]:
            content_id = part["content_id"]
            name = part["filename"] or ""
            files.append(
                File(name, part["type"], None if content_id is None else content_id[1:-1], content)
            )
        elif part["type"] == "text/html":
            html = _body(content)
        else:
            text = _body(content)
    return Mail(
        names=tuple(sorted(name.lower() for name in found["names"])),
        subject=found["subject"],
        note=found["note"],
        sender=tuple((name, address) for name, address in found["from"]),
        to=tuple((name, address) for name, address in found["to"]),
        text=text,
        html=html,
        files=tuple(files),
    )


def _body(content: bytes) -> str:
    return content.decode().replace("\r\n", "\n").removesuffix("\n")
