"""Reads a mailbox over IMAP (RFC 3501): finds messages by a header of theirs and removes them.

The standard library's `imaplib` opens the connection; it blocks, so each visit has a thread.

MailboxError   the mailbox could not be read; the text says why, for people
"""

import asyncio
import contextlib
import imaplib
import ipaddress
import re
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Login", "Mailbox", "MailboxError", "take"]

_PORTS = {"imap": 143, "imaps": 993}
_MOST = 500
"""Messages that one visit looks at, the newest first."""
_UID = re.compile(rb"UID ([0-9]+)")


class MailboxError(Exception):
    """No answer, or not the one that was hoped for."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A folder of an account. Without `tls` only on this machine: nobody else is to see the
    password."""

    host: str
    port: int
    tls: bool
    folder: str

    @classmethod
    def from_url(cls, url: str) -> "Self":
        """`imaps://host[:port]/folder` or, on loopback, `imap://…`; without a folder the inbox.
        Raises ValueError saying what is wrong."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"not imaps://host/folder: {url!r}")
        if parts.query or parts.fragment or parts.username is not None:
            raise ValueError("a mailbox has no login, query or fragment in its address")
        tls = parts.scheme == "imaps"
        if not tls and not _at_loopback(parts.hostname):
            raise ValueError("imap:// is for this machine only; elsewhere it is imaps://")
        folder = unquote(parts.path.removeprefix("/")) or "INBOX"
        if not folder.isascii() or any(c < " " for c in folder):
            raise ValueError("a folder's name is printable ASCII")
        return cls(parts.hostname, parts.port or _PORTS[parts.scheme], tls, folder)


def _at_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Login:
    username: str
    password: str = field(repr=False)


async def take(
    mailbox: Mailbox,
    login: Login,
    *,
    header: str,
    wanted: Collection[str],
    within: float = 20.0,
) -> frozenset[str]:
    """Which of the `wanted` values messages have in their `header`; those messages are removed.
    Each step takes `within` seconds at most. Raises MailboxError."""
    return await asyncio.to_thread(_visit, mailbox, login, header, frozenset(wanted), within)


def _visit(
    mailbox: Mailbox, login: Login, header: str, wanted: frozenset[str], within: float
) -> frozenset[str]:
    try:
        account = _connect(mailbox, within)
        try:
            account.login(_quoted(login.username), login.password)
            _done(account.select(_quoted(mailbox.folder)))
            found = _find(account, header, wanted)
            _remove(account, list(found))
        finally:
            _leave(account)
    except (imaplib.IMAP4.error, OSError, ValueError) as error:
        reason = _text(error)
        if login.password:
            reason = reason.replace(login.password, "[hidden]")
        raise MailboxError(reason) from None
    return frozenset(found.values())


def _connect(mailbox: Mailbox, within: float) -> imaplib.IMAP4:
    if mailbox.tls:
        return imaplib.IMAP4_SSL(
            mailbox.host, mailbox.port, ssl_context=ssl.create_default_context(), timeout=within
        )
    return imaplib.IMAP4(mailbox.host, mailbox.port, timeout=within)


def _leave(account: imaplib.IMAP4) -> None:
    """Whatever becomes of it, what was found is found."""
    try:
        account.logout()
    except (imaplib.IMAP4.error, OSError):
        with contextlib.suppress(OSError):
            account.shutdown()


def _find(account: imaplib.IMAP4, header: str, wanted: frozenset[str]) -> dict[str, str]:
    """Values by the UID of their message."""
    (uids,) = _done(account.uid("SEARCH", "UNDELETED", "HEADER", header, '""'))
    newest = (uids or b"").decode("ascii").split()[-_MOST:]
    if not newest:
        return {}
    asked = f"(BODY.PEEK[HEADER.FIELDS ({header})])"
    found: dict[str, str] = {}
    for part in _done(account.uid("FETCH", ",".join(newest), asked)):
        if isinstance(part, tuple) and (uid := _UID.search(part[0])) is not None:
            value = str(message_from_bytes(part[1], policy=default).get(header, "")).strip()
            if value in wanted:
                found[uid[1].decode("ascii")] = value
    return found


def _remove(account: imaplib.IMAP4, uids: list[str]) -> None:
    """Where the server cannot remove single messages (RFC 4315), they are only marked: others may
    be marked that are not ours to remove."""
    if not uids:
        return
    several = ",".join(uids)
    _done(account.uid("STORE", several, "+FLAGS.SILENT", r"(\Deleted)"))
    if "UIDPLUS" in account.capabilities:
        _done(account.uid("EXPUNGE", several))


def _done(answer: tuple[str, list[Any]]) -> list[Any]:
    kind, data = answer
    if kind != "OK":
        raise ValueError(b" ".join(part for part in data if isinstance(part, bytes)).decode())
    return data


def _quoted(text: str) -> str:
    """A quoted string (RFC 3501 §4.3). Raises ValueError for what it cannot hold."""
    if not text.isascii() or any(c < " " for c in text):
        raise ValueError("a login or folder with other characters than printable ASCII")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(error: Exception) -> str:
    said = error.args[0] if error.args else error
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
