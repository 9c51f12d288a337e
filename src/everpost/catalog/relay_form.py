"""A relay as its operator describes it: a URL (or `mx`) and options, judged here before anything
is kept.

No refusal repeats what stood in the URL, since that may be a piece of a password.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from everpost.catalog.checks import host_name, is_loopback, title
from everpost.model.errors import Invalid
from everpost.model.relay import RelayKind, TlsPolicy

__all__ = ["MECHANISMS", "RelayForm", "read_form"]

MECHANISMS = ("PLAIN", "LOGIN", "XOAUTH2")
_DEFAULT_PORTS = {"smtp": 25, "smtps": 465}
_SUBMISSION_PORT = 587  # RFC 6409 §3.1: where one logs in
_MOST_CONNECTIONS = 10_000
_MOST_WEIGHT = 1_000
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_LITERAL = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f.:]{2,45})\]")
_LONGEST_LOGIN = 1024
_MX = re.compile(r"mx(:.*)?", re.IGNORECASE | re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class RelayForm(msgspec.Struct, frozen=True, kw_only=True):
    """What passed. `settings` are the columns' JSON; `password` is in clear and not in `repr`."""

    name: str
    host: str
    port: int
    settings: dict[str, Any]
    password: str | None

    def __repr__(self) -> str:
        return f"<RelayForm {self.name} {self.host}:{self.port}>"


def read_form(
    url: str,
    *,
    name: str | None,
    tls: str | None,
    connections: int | None,
    weight: int | None,
    helo: str | None,
    site: str | None,
    eight_bit: bool | None,
    signed_headers: Sequence[str] | None,
    username: str | None,
    password: str | None,
    auth: str | None,
    port: int | None,
    source: Sequence[str] | None,
    destination_connections: int | None,
    allow_private: bool | None,
) -> RelayForm:
    """Judge all of it. Raises Invalid or Missing naming the field."""
    shared = {
        "helo": _helo(helo),
        "site": _site(site),
        "connections": _count(connections, "connections", low=1, high=_MOST_CONNECTIONS),
        "signed_headers": _signed_headers(signed_headers),
        "source": _source(source),
    }
    shared = {key: value for key, value in shared.items() if value is not None} | {
        "weight": _count(weight, "weight", low=0, high=_MOST_WEIGHT, default=1),
        "eight_bit": bool(eight_bit),
    }
    if _MX.fullmatch(url):
        if len(url) > len("mx"):
            raise Invalid("Invalid `url` field. `mx` stands alone; see `port`.", field="url")
        _not_with_mx(username=username, password=password, auth=auth)
        own = _direct(tls, destination_connections, allow_private)
        port = _count(port, "port", low=1, high=65_535, default=_DEFAULT_PORTS["smtp"])
        assert port is not None
        return RelayForm(
            name=title(name or "mx", "name"),
            host="mx",
            port=port,
            settings=own | shared,
            password=None,
        )
    _only_with_mx(
        port=port, destination_connections=destination_connections, allow_private=allow_private
    )
    own, host, port, password = _smart_host(url, tls, username, password, auth)
    if name is None:
        shown = f"[{host}]" if ":" in host else host
        name = host if port in {25, 465, 587} else f"{shown}:{port}"
    return RelayForm(
        name=title(name, "name"), host=host, port=port, settings=own | shared, password=password
    )


def _direct(
    tls: str | None, destination_connections: int | None, allow_private: bool | None
) -> dict[str, Any]:
    """Settings of a relay that delivers to the MX hosts of each destination."""
    policy = _policy(tls) if tls is not None else TlsPolicy.OPPORTUNISTIC
    settings = {
        "kind": RelayKind.MX.value,
        "tls": policy.value,
        "allow_private": bool(allow_private),
        "destination_connections": _count(
            destination_connections, "destination_connections", low=1, high=_MOST_CONNECTIONS
        ),
    }
    return {key: value for key, value in settings.items() if value is not None}


def _not_with_mx(**given: str | None) -> None:
    for field, value in given.items():
        if value is not None:
            raise Invalid(f"Invalid `{field}` field. MX hosts ask for no login.", field=field)


def _only_with_mx(**given: int | bool | None) -> None:
    for field, value in given.items():
        if value is not None:
            reason = "The `url` names it" if field == "port" else "It goes with `mx` only"
            raise Invalid(f"Invalid `{field}` field. {reason}.", field=field)


def _smart_host(
    url: str, tls: str | None, username: str | None, password: str | None, auth: str | None
) -> tuple[dict[str, Any], str, int, str | None]:
    """Settings of a relay that takes all mail, its host and port, and the password."""
    parts = _split(url)
    implicit = parts.scheme == "smtps"
    host = host_name(parts.hostname or "", "url")
    username, password = _login(parts, username, password)
    port = _port(parts, has_login=username is not None)
    settings: dict[str, Any] = {
        "implicit_tls": implicit,
        "tls": _tls(tls, implicit, has_login=username is not None, loopback=is_loopback(host)),
    }
    mechanism = _mechanism(auth, has_login=username is not None)
    optional = {"username": username, "auth": mechanism}
    settings |= {key: value for key, value in optional.items() if value is not None}
    return settings, host, port, password


def _split(url: str) -> SplitResult:
    # urlsplit drops some control characters in silence
    if not url.isprintable() or " " in url or len(url) > 2 * _LONGEST_LOGIN:
        raise _bad_url("It holds a space or a control character, or is too long.")
    try:
        parts = urlsplit(url if "://" in url else f"smtp://{url}")
        parts.port  # noqa: B018  raises on a port that is none
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise _bad_url()
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise _bad_url("Nothing follows the port; write / ? # in a password as %2F %3F %23.")
    return parts


def _bad_url(reason: str = "") -> Invalid:
    form = "It must be smtp://[user:password@]host[:port], or smtps:// for TLS from the start."
    return Invalid(f"Invalid `url` field. {form} {reason}".rstrip(), field="url")


def _port(parts: SplitResult, *, has_login: bool) -> int:
    if parts.port is not None:
        if parts.port == 0:
            raise _bad_url()
        return parts.port
    if has_login and parts.scheme == "smtp":
        return _SUBMISSION_PORT
    return _DEFAULT_PORTS[parts.scheme]


def _login(
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
        raise _bad_url("User and password must be UTF-8.") from None
    for field, value in (("username", username), ("password", password)):
        # NUL and ^A end a field in AUTH PLAIN (RFC 4616 §2) and XOAUTH2, line ends a command
        if value is not None and (_CONTROL.search(value) or len(value) > _LONGEST_LOGIN):
            raise Invalid(
                f"Invalid `{field}` field. At most {_LONGEST_LOGIN} characters, no control "
                "characters.",
                field=field,
            )
    if not username and not password:
        return None, None
    if not username or not password:
        field = "password" if username else "username"
        raise Invalid(f"Invalid `{field}` field. A login needs user and password.", field=field)
    return username, password


def _tls(given: str | None, implicit: bool, *, has_login: bool, loopback: bool) -> str:
    """The policy: one that sends a password over a network only to a server that proved its name,
    unless the operator says `require` or `none` in so many words."""
    guarded = has_login and not loopback
    if given is None:
        if implicit or guarded:
            return TlsPolicy.VERIFY.value
        # Nobody listens on loopback, so a login may go in clear there.
        return (TlsPolicy.NONE if has_login else TlsPolicy.OPPORTUNISTIC).value
    policy = _policy(given)
    if implicit and policy in {TlsPolicy.NONE, TlsPolicy.OPPORTUNISTIC}:
        raise Invalid("Invalid `tls` field. smtps:// is verify or require.", field="tls")
    if guarded and policy is TlsPolicy.OPPORTUNISTIC:
        raise Invalid(
            "Invalid `tls` field. With a login, opportunistic could send the password in clear: "
            "say verify, or require for any certificate (or none, if in clear is what you want).",
            field="tls",
        )
    return policy.value


def _policy(given: str) -> TlsPolicy:
    try:
        return TlsPolicy(given)
    except ValueError:
        raise Invalid(f"Invalid `tls` field. One of {', '.join(TlsPolicy)}.", field="tls") from None


def _mechanism(auth: str | None, *, has_login: bool) -> str | None:
    if auth is None:
        return None
    if auth.upper() not in MECHANISMS:
        raise Invalid(f"Invalid `auth` field. One of {', '.join(MECHANISMS)}.", field="auth")
    if not has_login:
        raise Invalid("Invalid `auth` field. It goes with a user and a password.", field="auth")
    return auth.upper()


def _helo(helo: str | None) -> str | None:
    if helo is None:
        return None
    literal = _LITERAL.fullmatch(helo)  # RFC 5321 §4.1.3
    if literal is not None:
        host_name(literal[1], "helo")
        return helo
    return host_name(helo, "helo")


def _source(source: Sequence[str] | None) -> list[str] | None:
    """Addresses in canonical form, one a family at most: which of two would be taken is not ours
    to guess."""
    if source is None:
        return None
    try:
        addresses = [ipaddress.ip_address(one) for one in source]
    except ValueError:
        addresses = []
    families = {address.version for address in addresses}
    if not addresses or len(families) < len(addresses):
        raise Invalid(
            "Invalid `source` field. IP addresses of this machine, one a family at most.",
            field="source",
        )
    return [str(address) for address in addresses]


def _site(site: str | None) -> str | None:
    if site is not None and not _SITE.fullmatch(site):
        raise Invalid("Invalid `site` field. Letters, digits, `_.-`, at most 63.", field="site")
    return site


def _count(
    value: int | None, field: str, *, low: int, high: int, default: int | None = None
) -> int | None:
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise Invalid(f"Invalid `{field}` field. A number from {low} to {high}.", field=field)
    return value


def _signed_headers(names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    lowered = [name.lower() for name in names]
    if not all(_FIELD_NAME.fullmatch(name) for name in lowered) or "from" not in lowered:
        raise Invalid(  # RFC 6376 §5.4: From must be signed
            "Invalid `signed_headers` field. Names of header fields, From among them.",
            field="signed_headers",
        )
    return list(dict.fromkeys(lowered))
