"""A relay as its operator describes it: a URL (or `mx`) and options, judged here before anything
is kept.

No refusal repeats what stood in the URL, since that may be a piece of a password.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from everpost.catalog.checks import address_here, count, host_name, is_loopback, title
from everpost.catalog.fields import NewRelay, RelayFields, said
from everpost.catalog.relay_url import Login, login, port_of, split
from everpost.model.address import parse_mailbox
from everpost.model.errors import Invalid
from everpost.model.relay import RelayKind, RelayState, TlsPolicy
from everpost.store.interface import RelayRow

__all__ = [
    "MECHANISMS", "MOST_RELAYS", "RelayForm", "change_form", "described", "read_form",
    "refuse_other_kind",
]  # fmt: skip

MECHANISMS = ("PLAIN", "LOGIN", "XOAUTH2")
MOST_RELAYS = 10_000
"""On one server."""
_MX_PORT = 25
_MOST_CONNECTIONS = 10_000
_MOST_MESSAGES = 1_000_000_000
_LONGEST_WARMUP = 365
"""Days."""
_LAST_MOMENT = 253_370_764_800_000
"""9999-01-01: what any time zone makes of an earlier moment can be shown."""
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_LITERAL = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f.:]{2,45})\]")
_MX = re.compile(r"mx(:.*)?", re.IGNORECASE | re.DOTALL)
_STRICTER = (TlsPolicy.NONE, TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRE, TlsPolicy.VERIFY)


class RelayForm(msgspec.Struct, frozen=True, kw_only=True):
    """What passed. `settings` are the columns' JSON; `password` is in clear and not in `repr`, or
    UNSET: the one that is kept already. `state` None: as it was, or enabled."""

    name: str
    host: str
    port: int
    settings: dict[str, Any]
    password: str | UnsetType | None
    state: str | None = None

    def __repr__(self) -> str:
        return f"<RelayForm {self.name} {self.host}:{self.port}>"


def read_form(given: NewRelay, *, kept: Login | None = None) -> RelayForm:
    """Judge all of it. `kept`: whose password is there already; it need not be said again for the
    same user at the same host. Raises Invalid or Missing naming the field."""
    values = {name: value for name, value in said(given).items() if value is not None}
    settings = {
        field: judge(values[field], field) for field, judge in _SHARED.items() if field in values
    }
    settings = {"weight": 1, "eight_bit": False} | settings
    state = values.get("state")
    if state is not None and state not in {known.value for known in RelayState}:
        raise Invalid(f"Invalid `state` field. One of {', '.join(RelayState)}.", field="state")
    if _MX.fullmatch(given.url):
        if len(given.url) > len("mx"):
            raise Invalid("Invalid `url` field. `mx` stands alone; see `port`.", field="url")
        return RelayForm(
            name=title(values.get("name", "mx"), "name"),
            host="mx",
            port=values.get("port", _MX_PORT),
            settings=_direct(values) | settings,
            password=None,
            state=state,
        )
    place = _smart_host(given.url, values, kept)
    name = values.get("name")
    if name is None:
        shown = f"[{place.host}]" if ":" in place.host else place.host
        name = place.host if place.port in {25, 465, 587} else f"{shown}:{place.port}"
    return RelayForm(
        name=title(name, "name"),
        host=place.host,
        port=place.port,
        settings=place.settings | settings,
        password=place.password,
        state=state,
    )


# --- a row and a change of it ---------------------------------------------------------------------


def described(row: RelayRow) -> dict[str, Any]:
    """A row in its operator's words: what `read_form` made it from, but for the password."""
    settings = dict(row.settings)
    settings["weight"] = max(settings.get("weight", 1), 1)  # 0 was allowed once, and meant 1
    implicit = settings.pop("implicit_tls", False)
    if settings.pop("kind", None) == RelayKind.MX.value:
        settings |= {"url": "mx", "port": row.port}
    else:
        host = f"[{row.host}]" if ":" in row.host else row.host
        settings["url"] = f"{'smtps' if implicit else 'smtp'}://{host}:{row.port}"
    if "warmup_from" in settings:
        moment = datetime.fromtimestamp(settings["warmup_from"] / 1000, UTC)
        settings["warmup_from"] = moment.isoformat()
    known = {name: value for name, value in settings.items() if name in NewRelay.__struct_fields__}
    return known | {"name": row.name, "state": row.state}


def change_form(row: RelayRow, given: RelayFields) -> RelayForm:
    """The row with what is given changed, judged as a whole. Where a change of host, scheme or user
    says nothing about TLS, the stricter of what was and what a new relay would have: nothing is
    sent in clear because an address has changed. Raises Invalid or Missing naming the field."""
    asked, was = said(given), described(row)
    merged = was | asked
    refuse_other_kind(row, merged["url"])
    if "url" in asked and "@" in asked["url"] and "username" not in asked:
        merged.pop("username", None)  # the URL has its own
    if asked.get("username", "") is None and asked.get("password") is None:
        merged.pop("auth", None)
    if "tls" not in asked and not asked.keys().isdisjoint({"url", "username"}):
        merged["tls"] = None
    if "warmup" in asked and "warmup_from" not in asked:
        merged.pop("warmup_from", None)
    forgotten = row.password is None or asked.get("password", UNSET) is None
    kept = None if forgotten else Login(row.host, was.get("username"))
    form = read_form(NewRelay(**merged), kept=kept)
    if "tls" in merged and merged["tls"] is None and "tls" not in asked:
        policies = (TlsPolicy(was.get("tls", TlsPolicy.NONE)), TlsPolicy(form.settings["tls"]))
        form.settings["tls"] = max(policies, key=_STRICTER.index).value
    return form


def refuse_other_kind(row: RelayRow, url: str) -> None:
    """A relay's kind is for its life: what its id means in records must not change."""
    if (row.settings.get("kind") == RelayKind.MX.value) != bool(_MX.fullmatch(url)):
        raise Invalid("Invalid `url` field. A relay stays `mx`, or stays none.", field="url")


# --- kinds ----------------------------------------------------------------------------------------


class _Place(NamedTuple):
    host: str
    port: int
    settings: dict[str, Any]
    password: str | UnsetType | None


def _direct(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a relay that delivers to the MX hosts of each destination."""
    for field in ("username", "password", "auth"):
        if field in values:
            raise Invalid(f"Invalid `{field}` field. MX hosts ask for no login.", field=field)
    for field in ("probe", "probe_sender"):
        if field in values:
            raise Invalid(f"Invalid `{field}` field. It goes with a smart host only.", field=field)
    judged = {f: judge(values[f], f) for f, judge in _DIRECT.items() if f in values}
    judged.pop("port", None)  # a column of its own
    if "warmup_from" in judged and "warmup" not in judged:
        raise Invalid("Invalid `warmup_from` field. It goes with `warmup`.", field="warmup_from")
    policy = _policy(values.get("tls", TlsPolicy.OPPORTUNISTIC))
    return {"kind": RelayKind.MX.value, "tls": policy.value, "allow_private": False} | judged


def _smart_host(url: str, values: Mapping[str, Any], kept: Login | None) -> _Place:
    """What makes a relay that takes all mail."""
    for field in _DIRECT:
        if field in values:
            reason = "The `url` names it" if field == "port" else "It goes with `mx` only"
            raise Invalid(f"Invalid `{field}` field. {reason}.", field=field)
    parts = split(url)
    implicit = parts.scheme == "smtps"
    host = host_name(parts.hostname or "", "url")
    username, password = login(
        parts, values.get("username"), values.get("password"), host=host, kept=kept
    )
    port = port_of(parts, has_login=username is not None)
    policy = _tls(
        values.get("tls"), implicit, has_login=username is not None, loopback=is_loopback(host)
    )
    settings: dict[str, Any] = {"implicit_tls": implicit, "tls": policy}
    mechanism = _mechanism(values.get("auth"), has_login=username is not None)
    optional = {"username": username, "auth": mechanism, "probe": values.get("probe")}
    if "probe_sender" in values:
        sender = parse_mailbox(values["probe_sender"], field="probe_sender")
        optional["probe_sender"] = sender.address
    settings |= {key: value for key, value in optional.items() if value is not None}
    return _Place(host, port, settings, password)


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


# --- fields ---------------------------------------------------------------------------------------


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


def _helo(helo: str, field: str) -> str:
    literal = _LITERAL.fullmatch(helo)  # RFC 5321 §4.1.3
    if literal is not None:
        host_name(literal[1], field)
        return helo
    return host_name(helo, field)


def _site(site: str, field: str) -> str:
    if not _SITE.fullmatch(site):
        raise Invalid("Invalid `site` field. Letters, digits, `_.-`, at most 63.", field=field)
    return site


def _signed_headers(names: list[str], field: str) -> list[str]:
    lowered = [name.lower() for name in names]
    if not all(_FIELD_NAME.fullmatch(name) for name in lowered) or "from" not in lowered:
        raise Invalid(  # RFC 6376 §5.4: From must be signed
            "Invalid `signed_headers` field. Names of header fields, From among them.", field=field
        )
    return list(dict.fromkeys(lowered))


def _warmup(days: list[int], field: str) -> list[int]:
    if not 1 <= len(days) <= _LONGEST_WARMUP:
        raise Invalid(
            f"Invalid `warmup` field. From 1 to {_LONGEST_WARMUP} days; null ends it.", field=field
        )
    return [count(day, field, low=1, high=_MOST_MESSAGES) for day in days]


def _warmup_from(text: str, field: str) -> int:
    """Milliseconds since 1970 of a date (UTC) or a time."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        at = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        at = -1
    if not 0 <= at < _LAST_MOMENT:
        raise Invalid("Invalid `warmup_from` field. A date like 2026-11-25.", field=field)
    return at


def _within(low: int, high: int) -> Callable[[Any, str], int]:
    return lambda value, field: count(value, field, low=low, high=high)


def _flag(value: Any, field: str) -> bool:
    return bool(value)


_SHARED: Mapping[str, Callable[[Any, str], Any]] = {
    "helo": _helo,
    "site": _site,
    "weight": _within(1, 1_000),
    "connections": _within(1, _MOST_CONNECTIONS),
    "messages_per_connection": _within(1, _MOST_MESSAGES),
    "messages_per_second": _within(1, _MOST_MESSAGES),
    "messages_per_minute": _within(1, _MOST_MESSAGES),
    "messages_per_day": _within(1, _MOST_MESSAGES),
    "eight_bit": _flag,
    "signed_headers": _signed_headers,
    "source": address_here,
}
"""What any relay may have, and who judges it."""

_DIRECT: Mapping[str, Callable[[Any, str], Any]] = {
    "port": _within(1, 65_535),
    "destination_connections": _within(1, _MOST_CONNECTIONS),
    "allow_private": _flag,
    "warmup": _warmup,
    "warmup_from": _warmup_from,
}
"""What goes with `mx` only."""
