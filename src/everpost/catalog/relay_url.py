"""The URL of a smart host, and the login in it or beside it.

No refusal repeats what stood there, since that may be a piece of a password.
"""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import UNSET, UnsetType

from everpost.model.errors import Invalid

__all__ = ["Login", "bad_url", "login", "port_of", "split"]

_DEFAULT_PORTS = {"smtp": 25, "smtps": 465}
_SUBMISSION_PORT = 587  # RFC 6409 §3.1: where one logs in
_LONGEST_LOGIN = 1024
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class Login(NamedTuple):
    """Whose password is kept, and where it goes."""

    host: str
    username: str | None


def split(url: str) -> SplitResult:
    # urlsplit drops some control characters in silence
    if not url.isprintable() or " " in url or len(url) > 2 * _LONGEST_LOGIN:
        raise bad_url("It holds a space or a control character, or is too long.")
    try:
        parts = urlsplit(url if "://" in url else f"smtp://{url}")
        parts.port  # noqa: B018  raises on a port that is none
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise bad_url()
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise bad_url("Nothing follows the port; write / ? # in a password as %2F %3F %23.")
    return parts


def bad_url(reason: str = "") -> Invalid:
    form = "It must be smtp://[user:password@]host[:port], or smtps:// for TLS from the start."
    return Invalid(f"Invalid `url` field. {form} {reason}".rstrip(), field="url")


def port_of(parts: SplitResult, *, has_login: bool) -> int:
    if parts.port is not None:
        if parts.port == 0:
            raise bad_url()
        return parts.port
    if has_login and parts.scheme == "smtp":
        return _SUBMISSION_PORT
    return _DEFAULT_PORTS[parts.scheme]


def login(
    parts: SplitResult,
    username: str | None,
    password: str | None,
    *,
    host: str,
    kept: Login | None,
) -> tuple[str | None, str | UnsetType | None]:
    """User and password; the latter UNSET where the one that is kept goes on. A kept one goes to
    the host and for the user that it was given for: else who may change a relay, but not read its
    password, would have it sent to a host of his own."""
    username, password = _of_both(parts, username, password)
    if not username and not password:
        return None, None
    if not username:
        raise Invalid(
            "Invalid `username` field. A login needs user and password.", field="username"
        )
    if password:
        return username, password
    if kept == Login(host, username) and password is None:
        return username, UNSET
    again = "; it is to be given again for another host or user" if kept else ""
    raise Invalid(
        f"Invalid `password` field. A login needs user and password{again}.", field="password"
    )


def _of_both(
    parts: SplitResult, username: str | None, password: str | None
) -> tuple[str | None, str | None]:
    for field, of_url, given in (
        ("username", parts.username, username),
        ("password", parts.password, password),
    ):
        if of_url is not None and given is not None:
            raise Invalid(f"Invalid `{field}` field. The `url` has one already.", field=field)
    try:
        if parts.username is not None:
            username = unquote(parts.username, errors="strict")
        if parts.password is not None:
            password = unquote(parts.password, errors="strict")
    except UnicodeDecodeError:
        raise bad_url("User and password must be UTF-8.") from None
    for field, value in (("username", username), ("password", password)):
        # NUL and ^A end a field in AUTH PLAIN (RFC 4616 §2) and XOAUTH2, line ends a command
        if value is not None and (_CONTROL.search(value) or len(value) > _LONGEST_LOGIN):
            raise Invalid(
                f"Invalid `{field}` field. At most {_LONGEST_LOGIN} characters, no control "
                "characters.",
                field=field,
            )
    return username, password
