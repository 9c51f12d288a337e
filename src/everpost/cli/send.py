"""`everpost send`: one message, and with --wait what became of it."""

import base64
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click

from everpost.cli.client import Api, connected, path_of
from everpost.cli.exits import FAILED, Wrong
from everpost.cli.message import recipients_table, settled
from everpost.cli.root import Command
from everpost.cli.show import Printer
from everpost.clock import SystemClock

__all__ = ["command"]


@click.command(cls=Command, name="send")
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="`a@b` or `Name <a@b>`.")
@click.option("--to", required=True, multiple=True, metavar="ADDRESS", help="May be repeated.")
@click.option("--cc", multiple=True, metavar="ADDRESS")
@click.option("--bcc", multiple=True, metavar="ADDRESS")
@click.option("--reply-to", multiple=True, metavar="ADDRESS")
@click.option("--subject", required=True)
@click.option("--text", help="The text.")
@click.option("--text-file", type=click.File("r", encoding="utf-8"), help="A file; - is stdin.")
@click.option("--html", help="The HTML.")
@click.option("--html-file", type=click.File("r", encoding="utf-8"), help="A file; - is stdin.")
@click.option(
    "--attach",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file to attach. May be repeated.",
)
@click.option("--header", multiple=True, metavar="NAME:VALUE", help="May be repeated.")
@click.option("--tag", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--scheduled-at", metavar="WHEN", help="ISO 8601, or words like `in 5 min`.")
@click.option("--stream", metavar="NAME", help="transactional, broadcast, or one of yours.")
@click.option("--idempotency-key", metavar="KEY", help="A repeat with the same key sends nothing.")
@click.option("--wait", is_flag=True, help="Follow the message until each recipient has an end.")
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="With --wait: at most so many seconds.",
)
@click.option("--poll-s", type=click.FloatRange(min=0.001), default=0.25, hidden=True)
@connected
def command(
    api: Api,
    out: Printer,
    *,
    wait: bool,
    wait_s: float,
    poll_s: float,
    idempotency_key: str | None,
    **words: Any,
) -> None:
    """Send a message and print its id.

    With --wait the exit code is 0 only when every recipient's mail was delivered.
    """
    headers = {"idempotency-key": idempotency_key} if idempotency_key else None
    made = api.post("/emails", _body(**words), headers=headers)
    if not wait:
        if out.as_json:
            out.json(made)
        else:
            out.line(str(made["id"]))
        return
    if not out.as_json:
        out.line(str(made["id"]))
    rows = _follow(api, str(made["id"]), deadline_s=wait_s, poll_s=poll_s)
    if out.as_json:
        out.json({**made, "recipients": rows})
    else:
        recipients_table(out, rows)
    if not all(row.get("status") == "delivered" for row in rows):
        click.get_current_context().exit(FAILED)


def _body(
    *,
    sender: str,
    to: Sequence[str],
    cc: Sequence[str],
    bcc: Sequence[str],
    reply_to: Sequence[str],
    subject: str,
    text: str | None,
    text_file: IO[str] | None,
    html: str | None,
    html_file: IO[str] | None,
    attach: Sequence[Path],
    header: Sequence[str],
    tag: Sequence[str],
    scheduled_at: str | None,
    stream: str | None,
) -> dict[str, Any]:
    """The request as the API takes it; what was not given is left out."""
    body: dict[str, Any] = {
        "from": sender,
        "to": list(to),
        "cc": list(cc),
        "bcc": list(bcc),
        "reply_to": list(reply_to),
        "subject": subject,
        "text": _one("text", text, text_file),
        "html": _one("html", html, html_file),
        "attachments": [_attachment(path) for path in attach],
        "headers": dict(_pair("--header", given, ":") for given in header),
        "tags": [
            {"name": name, "value": value}
            for name, value in (_pair("--tag", given, "=") for given in tag)
        ],
        "scheduled_at": scheduled_at,
        "stream": stream,
    }
    kept = {name: value for name, value in body.items() if value not in (None, [], {})}
    if "text" not in kept and "html" not in kept:
        raise Wrong("give the message a body: --text, --text-file, --html or --html-file")
    return kept


def _one(name: str, given: str | None, file: IO[str] | None) -> str | None:
    if given is not None and file is not None:
        raise Wrong(f"--{name} and --{name}-file exclude each other")
    if file is None:
        return given
    try:
        return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Wrong(f"--{name}-file: {error}") from error


def _attachment(path: Path) -> dict[str, str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Wrong(f"--attach {path}: {error.strerror}") from error
    return {"filename": path.name, "content": base64.b64encode(content).decode()}


def _pair(option: str, given: str, separator: str) -> tuple[str, str]:
    name, found, value = given.partition(separator)
    if not found or not name.strip():
        raise Wrong(f"{option} {given}: expected NAME{separator}VALUE")
    return name.strip(), value.strip()


def _follow(api: Api, id_: str, *, deadline_s: float, poll_s: float) -> list[dict[str, Any]]:
    """The recipients once all have an end, or as they are at the deadline."""
    clock = SystemClock()
    until = clock.monotonic() + deadline_s
    while True:
        rows = list(api.get(path_of("emails", id_, "recipients")).get("data") or [])
        left = until - clock.monotonic()
        if (rows and all(settled(row) for row in rows)) or left <= 0:
            return rows
        time.sleep(min(poll_s, left))
