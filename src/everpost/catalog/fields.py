"""What people may say of relays, pools, routes, streams and projects: one struct each, for the
API's bodies, for `everpost apply` and for the API's document.

What is not given is UNSET and stays as it is; None asks for the default. Nothing is judged here but
the types; the rooms' own forms do that. No `repr` shows a value, since it may be a password.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "Document", "NewPool", "NewRelay", "NewRoute", "PoolFields", "ProjectEntry", "ProjectFields",
    "RelayFields", "RouteFields", "StreamEntry", "StreamFields", "said",
]  # fmt: skip

_Text = str | UnsetType | None
_Count = int | UnsetType | None
_Flag = bool | UnsetType | None
_Texts = list[str] | UnsetType | None
_Demand = Literal["replicated", "committed"] | UnsetType | None


def _say(text: str, *examples: Any) -> Meta:
    return Meta(description=text, examples=list(examples) or None)


def said(given: msgspec.Struct) -> dict[str, Any]:
    """The fields that were given, by name."""
    values = ((name, getattr(given, name)) for name in given.__struct_fields__)
    return {name: value for name, value in values if value is not UNSET}


class _Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(said(self))}>"


_URL = _say(
    "`smtp://` or `smtps://`, with user, password, port; or `mx`: straight to the MX hosts of each"
    " destination.",
    "smtp://mail.example:587",
)
_DEMAND = _say(
    "The least that an acceptance of its mail must mean, of stream, project and request the"
    " strongest: `committed`, never only in a journal; `replicated`, on standbys, too. Else 503."
    " Default: no demand."
)
_ROUTES_NAME = _say("Its name.", "to-example")
_ROUTES_POOL = _say("The pool, by id or name.", "newsletters")


class RelayFields(_Said, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What of a relay may change."""

    url: Annotated[str | UnsetType, _URL] = UNSET
    name: Annotated[_Text, _say("Default: the host.")] = UNSET
    state: Annotated[
        Literal["enabled", "draining", "disabled"] | UnsetType | None,
        _say("`draining`: no new sessions, running ones finish. Default: enabled."),
    ] = UNSET
    username: Annotated[_Text, _say("In place of the one in `url`.")] = UNSET
    password: Annotated[
        _Text,
        _say(
            "In place of the one in `url`. Never shown. To be given again when the host or the user"
            " changes."
        ),
    ] = UNSET
    tls: Annotated[
        Literal["none", "opportunistic", "require", "verify"] | UnsetType | None,
        _say(
            "What TLS a session must have. Default: `verify` with smtps:// or a login across a"
            " network, `none` with a login on this machine, else `opportunistic`. `require` takes"
            " any certificate."
        ),
    ] = UNSET
    weight: Annotated[
        _Count, _say("Its share of the mail, against the others of its tier. Default: 1.")
    ] = UNSET
    connections: Annotated[
        _Count, _say("Most connections, of all processes together. Default: 20; `mx`: 100.")
    ] = UNSET
    messages_per_connection: Annotated[
        _Count, _say("A connection is replaced after so many. Default: 1000.")
    ] = UNSET
    messages_per_second: Annotated[
        _Count, _say("Most messages a second, of all processes together. Default: no limit.")
    ] = UNSET
    messages_per_minute: Annotated[
        _Count, _say("Most messages a minute, of all processes together. Default: no limit.")
    ] = UNSET
    messages_per_day: Annotated[
        _Count, _say("Most messages a day (UTC), of all processes together. Default: no limit.")
    ] = UNSET
    helo: Annotated[_Text, _say("The name we greet with.")] = UNSET
    auth: Annotated[_Text, _say("PLAIN, LOGIN or XOAUTH2. Default: what it offers.")] = UNSET
    site: Annotated[_Text, _say("The site of nodes that should prefer it.")] = UNSET
    eight_bit: Annotated[_Flag, _say("Use 8BITMIME where it is offered. Default: no.")] = UNSET
    signed_headers: Annotated[
        _Texts, _say("DKIM signs these, where the relay rewrites others.")
    ] = UNSET
    source: Annotated[
        _Texts, _say("Addresses of this machine to connect from, one IPv4 and one IPv6 at most.")
    ] = UNSET
    probe: Annotated[
        _Flag, _say("Not with `mx`: whether it is tried now and then without mail. Default: yes.")
    ] = UNSET
    probe_sender: Annotated[
        _Text, _say("Not with `mx`: the MAIL FROM of those trials.", "postmaster@example.com")
    ] = UNSET
    port: Annotated[_Count, _say("`mx` only: the port of MX hosts. Default: 25.")] = UNSET
    destination_connections: Annotated[
        _Count,
        _say(
            "`mx` only: most connections to one destination's site, of all processes together."
            " Default: 20."
        ),
    ] = UNSET
    allow_private: Annotated[
        _Flag, _say("`mx` only: also connect to addresses that are not public. Default: no.")
    ] = UNSET
    warmup: Annotated[
        list[int] | UnsetType | None,
        _say(
            "`mx` only: the day plan of an address that nobody knows yet: messages on the first"
            " day, the second …; afterwards no limit.",
            [50, 100, 200, 400],
        ),
    ] = UNSET
    warmup_from: Annotated[
        _Text,
        _say("`mx` only: the plan's first day (UTC). Default: when it was given.", "2026-11-25"),
    ] = UNSET


class NewRelay(RelayFields, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A mail server that Everpost hands mail to."""

    url: Annotated[str, _URL]


_Tiers = Annotated[
    list[list[str]],
    _say(
        "Relays by id or name, in tiers: the first one carries the mail, the next one helps while"
        " too little of it is healthy.",
        [["main", "second"], ["spare"]],
    ),
]


class PoolFields(_Said, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What of a pool may change."""

    name: Annotated[str | UnsetType, _say("Its name.", "newsletters")] = UNSET
    tiers: Annotated[list[list[str]] | UnsetType, _say("All tiers anew, as when it was made.")] = (
        UNSET
    )
    spill_below: Annotated[
        float | UnsetType | None,
        _say(
            "While less than this share of a tier's weight is healthy, the next tier helps."
            " Default: 0.5."
        ),
    ] = UNSET
    floor: Annotated[
        _Count,
        _say("So many relays stay in service however poor they look beside others. Default: 1."),
    ] = UNSET


class NewPool(PoolFields, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Relays that carry the same mail, in tiers."""

    name: Annotated[str, _say("Its name. `default` takes what goes nowhere else.", "newsletters")]
    tiers: _Tiers


class RouteFields(_Said, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What of a route may change."""

    name: Annotated[str | UnsetType, _ROUTES_NAME] = UNSET
    pool: Annotated[str | UnsetType, _ROUTES_POOL] = UNSET
    position: Annotated[
        _Count, _say("Its place in the list, from 1; later ones move on. Default: the end.")
    ] = UNSET
    project: Annotated[
        int | str | UnsetType | None, _say("Only mail of this project, by id or name.")
    ] = UNSET
    stream: Annotated[_Text, _say("Only mail of streams of this name.", "broadcast")] = UNSET
    sender_domain: Annotated[
        _Text, _say("Only mail from this domain; `*.example.com`: from all below it.")
    ] = UNSET
    recipient_domain: Annotated[
        _Text, _say("Only mail to this domain; `*.example.com`: to all below it.", "example.com")
    ] = UNSET
    tag: Annotated[
        _Text, _say("Only mail with this tag: its name, or `name=value`.", "kind=invoice")
    ] = UNSET


class NewRoute(RouteFields, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which mail goes to which pool: the first route that fits in all that it says decides."""

    name: Annotated[str, _ROUTES_NAME]
    pool: Annotated[str, _ROUTES_POOL]


class StreamFields(_Said, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What of a stream may change."""

    weight: Annotated[
        _Count,
        _say(
            "Its share of the queue beside its project's other streams of the same priority."
            " Default: 1."
        ),
    ] = UNSET
    pool: Annotated[
        _Text, _say("The pool of its mail, by id or name, where no route fits. The operator's.")
    ] = UNSET
    retry_first: Annotated[
        int | UnsetType, _say("Seconds until the second attempt; it doubles from there.")
    ] = UNSET
    retry_cap: Annotated[int | UnsetType, _say("Most seconds between two attempts.")] = UNSET
    lifetime: Annotated[int | UnsetType, _say("Seconds for which a message is tried.")] = UNSET
    in_doubt: Annotated[
        Literal["resend", "hold", "fail"] | UnsetType,
        _say("What follows an attempt that may have delivered without our knowing it."),
    ] = UNSET
    durability: Annotated[_Demand, _DEMAND] = UNSET


class StreamEntry(StreamFields, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A stream in a file that is applied."""

    name: Annotated[str, _say("Its name.", "broadcast")]
    project: Annotated[
        int | str | UnsetType | None, _say("Its project, by id or name. Default: the caller's.")
    ] = UNSET


class ProjectFields(_Said, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What of a project may change."""

    weight: Annotated[_Count, _say("Its share of the queue beside other projects. Default: 1.")] = (
        UNSET
    )
    durability: Annotated[_Demand, _DEMAND] = UNSET


class ProjectEntry(ProjectFields, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A project in a file that is applied."""

    name: Annotated[str, _say("Its name.")]


class Document(_Said, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What there should be. Things are known by their names; a kind that is not mentioned stays as
    it is. A relay, pool or route is described in full: what its entry does not say has its default,
    but for its state, a password and the first day of a warm-up. Of streams and projects,
    what is not said stays."""

    relays: Annotated[list[NewRelay] | UnsetType, _say("Relays.")] = UNSET
    pools: Annotated[list[NewPool] | UnsetType, _say("Pools.")] = UNSET
    routes: Annotated[
        list[NewRoute] | UnsetType, _say("Routes, in their order; they come before all others.")
    ] = UNSET
    streams: Annotated[list[StreamEntry] | UnsetType, _say("Streams.")] = UNSET
    projects: Annotated[list[ProjectEntry] | UnsetType, _say("Projects.")] = UNSET
