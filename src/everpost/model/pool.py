"""Pools: relays in tiers, and the routes that say which mail goes to which pool. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

__all__ = ["DEFAULT_POOL", "Pool", "Route", "pool_for"]

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


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Mail that fits everything given here goes to `pool` (a pool's name). Domains are A-labels in
    lower case; `*.example.com` means every domain below example.com. `tag` is (name, value); a
    value None fits any."""

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


def pool_for(
    routes: Sequence[Route],
    *,
    project: int,
    stream: str,
    sender_domain: str,
    recipient_domain: str,
    tags: Sequence[tuple[str, str]] = (),
    stream_pool: str | None = None,
) -> str:
    """The pool's name: the first route that fits, else the stream's own pool, else the default."""
    for route in routes:
        if route.fits(
            project=project,
            stream=stream,
            sender_domain=sender_domain,
            recipient_domain=recipient_domain,
            tags=tags,
        ):
            return route.pool
    return stream_pool or DEFAULT_POOL
