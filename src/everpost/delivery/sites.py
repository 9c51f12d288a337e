"""Which destinations are one: domains whose mail the same hosts take are one *site*. Pure.

By the names of its best MX hosts a domain belongs to a site together with all domains that name the
same set (MX roll-up); providers that give each domain a host name of its own are joined by a table,
`shaping.toml`, each row with its source.
"""

import datetime
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated

import msgspec
from msgspec import Meta

from everpost.delivery.mx import Exchanges

__all__ = ["PROVIDERS", "Provider", "Providers", "Site", "lone", "site_of"]

_LONGEST = 120
"""Characters of a site's name; a longer list of hosts is shortened to the first and a digest."""

_Positive = Annotated[int, Meta(ge=1)]


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row, as `shaping.toml` explains it."""

    name: Annotated[str, Meta(pattern="^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
    mx: Annotated[tuple[str, ...], Meta(min_length=1)]
    connections: _Positive | None = None
    messages: _Positive | None = None
    source: Annotated[str, Meta(min_length=5)]
    date: datetime.date

    def __post_init__(self) -> None:
        for host in self.mx:
            if host != host.lower().strip(".") or "." not in host:
                raise ValueError(f"{self.name}: not the lower-case name of a host: {host}")

    def has(self, host: str) -> bool:
        return any(host == own or host.endswith(f".{own}") for own in self.mx)


class Providers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. No host belongs to two."""

    providers: tuple[Provider, ...]

    def __post_init__(self) -> None:
        names = [one.name for one in self.providers]
        if len(set(names)) < len(names):
            raise ValueError("a provider comes twice")
        for one in self.providers:
            for other in self.providers:
                if one is not other and (common := [h for h in one.mx if other.has(h)]):
                    raise ValueError(f"{common[0]} is both {one.name}'s and {other.name}'s")


class Site(msgspec.Struct, frozen=True, gc=False):
    """Where mail for a destination ends up. `name` is what limits, cool-downs and notes go by;
    `group` names the hosts alone: a session to one of `hosts` may carry the mail of every
    destination of the same group. `connections` and `messages` are the provider's, where known.

    Only what one of `hosts` says tells of the site: a domain may well name another's hosts as its
    best, and a host of its own behind them.
    """

    name: str
    group: str
    hosts: frozenset[str] = frozenset()
    connections: int | None = None
    messages: int | None = None


def _load() -> tuple[Provider, ...]:
    text = files("everpost.delivery").joinpath("shaping.toml").read_text("utf-8")
    return msgspec.toml.decode(text, type=Providers, strict=True).providers


PROVIDERS = _load()


def lone(destination: str) -> Site:
    """The destination by itself: all that is known before DNS has answered."""
    return Site(destination, destination)


def site_of(known: Exchanges, *, providers: Sequence[Provider] = PROVIDERS) -> Site:
    """The site of a domain whose MX records are known."""
    best = min(one.preference for one in known.hosts)
    hosts = frozenset(one.host for one in known.hosts if one.preference == best)
    group = ",".join(sorted(hosts))
    if len(group) > _LONGEST:
        digest = hashlib.blake2b(group.encode(), digest_size=8).hexdigest()
        group = f"{min(hosts)[: _LONGEST // 2]}+{len(hosts) - 1}:{digest}"
    for provider in providers:
        if all(map(provider.has, hosts)):
            # No host is called so: a colon is in no host name.
            name = f"provider:{provider.name}"
            return Site(name, group, hosts, provider.connections, provider.messages)
    return Site(group, group, hosts)
