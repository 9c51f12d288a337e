"""`everpost sandbox`: mail that was captured instead of sent."""

import sys

import click

from everpost.cli.client import Api, connected, path_of
from everpost.cli.root import Group
from everpost.cli.show import Printer, moment, visible

__all__ = ["command"]


@click.group(cls=Group, name="sandbox")
def command() -> None:
    """Read mail that was captured, not sent."""


@command.command("list")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@connected
def list_(api: Api, out: Printer, limit: int) -> None:
    """List captured messages, newest first."""
    rows = list(api.rows("/sandbox", limit=limit))
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ["id", "at", "from", "to", "subject"],
        (
            [
                r.get("id"),
                moment(r.get("created_at")),
                r.get("from"),
                _joined(r.get("to")),
                r.get("subject"),
            ]
            for r in rows
        ),
        empty="Nothing was captured.",
    )


def _joined(value: object) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value or "")


@command.command("show")
@click.argument("message")
@click.option("--raw", is_flag=True, help="The bytes as a mail server would have got them.")
@connected
def show(api: Api, out: Printer, message: str, raw: bool) -> None:
    """Show the captured MESSAGE: its headers and its readable parts."""
    row = api.get(path_of("sandbox", message))
    if out.as_json:
        out.json(row)
        return
    content = str(row.get("raw", "")).encode("utf-8", "replace")
    if raw:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    _readable(out, content)


def _readable(out: Printer, content: bytes) -> None:
    """Headers as they stand, then each part: text as text, the rest by name and size."""
    from email import message_from_bytes
    from email.message import EmailMessage
    from email.policy import default

    parsed = message_from_bytes(content, policy=default)
    for name, value in parsed.items():
        out.line(f"{name}: {value}")
    assert isinstance(parsed, EmailMessage)
    for part in parsed.walk():
        if part.is_multipart():
            continue
        out.line()
        payload = part.get_payload(decode=True)
        body = payload if isinstance(payload, bytes) else b""
        if part.get_content_maintype() == "text" and not part.is_attachment():
            if part is not parsed:
                out.line(f"--- {part.get_content_type()}")
            for line in _decoded(body, part.get_content_charset()).splitlines():
                click.echo(visible(line))
        else:
            name = part.get_filename() or "unnamed"
            out.line(f"--- {part.get_content_type()} {name} ({len(body)} bytes)")


def _decoded(body: bytes, charset: str | None) -> str:
    """In the part's own charset, or in UTF-8 where that is none that Python knows."""
    try:
        return body.decode(charset or "utf-8", "replace")
    except (LookupError, UnicodeError):
        return body.decode("utf-8", "replace")
