"""Pools: relays in tiers, and the routes that say which mail goes to which pool. Pure."""

from collections.abc import Container, Iterable, Sequence

import msgspec

__all__ = ["DEFAULT_POOL", "Pool", "Route", "Way", "way_of", "with_default"]

DEFAULT_POOL = "default"
"""Where mail goes that no route and no stream sends elsewhere. Unless somebody makes a pool of this
name, it holds every relay, in one tier."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Relays by id, in tiers: the first tier carries the mail; while less than `spill_below` of its
    weight is healthy, the next one helps. `floor`: relays that stay in service however poor they
    look beside their like, so that a judgement of ours never takes a whole pool out."""

    name: str
    tiers: tuple[tuple[bytes, ...], ...]
    spill_below: float = 0.5
    floor: int = 1


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mail that fits everything given here goes to `pool` (a pool's name). Domains are A-labels in
    lower case; `*.example.com` means every domain below example.com. `tag` is (name, value); a
    value None fits any. What a later release may ask for besides is refused, or the route would
    fit more than was meant."""

    name: str
    pool: str
    project: int | None = None
    stream: str | None = None
    sender_domain: str | None = None
    recipient_domain: str | None = None
    tag: tuple[str, str | None] | None = None

    def fits(
        self,
        *,
        project: int,
        stream: str,
        sender_domain: str,
        recipient_domain: str,
        tags: Iterable[tuple[str, str]],
    ) -> bool:
        return (
            self.project in {None, project}
            and self.stream in {None, stream}
            and _covers(self.sender_domain, sender_domain)
            and _covers(self.recipient_domain, recipient_domain)
            and (self.tag is None or any(_same_tag(self.tag, tag) for tag in tags))
        )


def _covers(pattern: str | None, domain: str) -> bool:
    if pattern is None or pattern == domain:
        return True
    return pattern.startswith("*.") and domain.endswith(pattern[1:])


def _same_tag(wanted: tuple[str, str | None], tag: tuple[str, str]) -> bool:
    return wanted[0] == tag[0] and wanted[1] in {None, tag[1]}


class Way(msgspec.Struct, frozen=True):
    """Where a mail goes. `route`: the one that decided; else, with `by_stream`, the stream did,
    else nothing, and it is the default pool."""

    pool: str
    route: str | None = None
    by_stream: bool = False


def way_of(
    routes: Iterable[Route],
    pools: Container[str],
    *,
    project: int,
    stream: str,
    sender_domain: str,
    recipient_domain: str,
    tags: Sequence[tuple[str, str]] = (),
    stream_pool: str | None = None,
) -> Way:
    """The first route that fits decides, else the stream's own pool (where it is one of `pools`, by
    name, or the default), else it is the default pool."""
    for route in routes:
        if route.fits(
            project=project,
            stream=stream,
            sender_domain=sender_domain,
            recipient_domain=recipient_domain,
            tags=tags,
        ):
            return Way(route.pool, route.name)
    if stream_pool is not None and (stream_pool == DEFAULT_POOL or stream_pool in pools):
        return Way(stream_pool, by_stream=True)
    return Way(DEFAULT_POOL)


def with_default(pools: Iterable[Pool], relays: Sequence[bytes]) -> Sequence[Pool]:
    """These pools by name, and the default one: of all relays, in one tier, unless somebody made
    it."""
    named = {pool.name: pool for pool in pools}
    named.setdefault(
        DEFAULT_POOL, Pool(name=DEFAULT_POOL, tiers=(tuple(relays),) if relays else ())
    )
    return tuple(named.values())
