"""The API role: its rooms, its listeners, and how they close."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from everpost import telemetry
from everpost.access import Access
from everpost.api import (
    ApiLimits,
    HttpLimits,
    HttpServer,
    Services,
    build_admin,
    build_api,
    build_operator,
)
from everpost.assembly.node import Node
from everpost.catalog import ApiKeys, Domains, Relays
from everpost.dispatch import Renderer, Sandbox
from everpost.intake import Intake, Limits
from everpost.model.message import Content
from everpost.monitoring.health import Facts, Health, HealthLimits
from everpost.monitoring.metrics import Metrics
from everpost.net.listener import Endpoint, adopt, listen
from everpost.net.resolver import Resolver
from everpost.store.interface import MessageRow, StoreError

__all__ = ["open_doors"]

_decode = msgspec.msgpack.Decoder(Content).decode


def _intake(node: Node) -> Intake:
    settings = node.settings.intake
    return Intake(
        store=node.store,
        directory=node.directory,
        sealer=node.sealer,
        clock=node.clock,
        ids=node.ids,
        randomness=secrets.token_bytes,
        limits=Limits(
            recipients_per_field=settings.recipients_per_field,
            message_bytes=settings.message_bytes,
            part_bytes=settings.part_bytes,
            schedule_days=settings.schedule_days,
        ),
        durability=node.settings.store.durability,
        idempotency_ms=int(settings.idempotency_hours * 3_600_000),
    )


def _health(node: Node) -> Health:
    origin = node.clock.now() / 1000 - node.clock.monotonic()

    async def gather() -> Facts:
        await node.store.revision()
        stat = await asyncio.to_thread(os.statvfs, node.places.data)
        now = node.directory.now
        off = node.clock.now() / 1000 - node.clock.monotonic() - origin
        return Facts(
            store_writable=await _writable(node),
            free_bytes=stat.f_bavail * stat.f_frsize,
            relays=sum(relay.state == "enabled" for relay in now.relays),
            sandbox=not now.relays and not now.domains,
            clock_off_ms=int(off * 1000),
        )

    limits = HealthLimits(free_bytes=node.settings.limits.free_bytes)
    return Health(gather, node.clock, limits=limits)


async def _writable(node: Node) -> bool:
    """The writer says when it could not write; after that, only a write that works clears it."""
    if not telemetry.alarm("store_unavailable").raised:
        return True
    try:
        await node.store.purge(before=0, limit=1)
    except StoreError:
        return False
    return True


def _services(
    node: Node, metrics: Metrics, threads: ThreadPoolExecutor, health: Health
) -> Services:
    settings = node.settings
    renderer = Renderer(
        sealer=node.sealer,
        directory=node.directory,
        contents=node.store.content,
        parts=node.store.parts,
        threads=threads,
        clock=node.clock,
    )

    def read_content(row: MessageRow) -> Content:
        assert row.sealed is not None
        return _decode(node.sealer.unseal(row.key_id, row.sealed, context=row.content_id))

    async def exposition() -> bytes:
        facts = await node.store.facts()
        return await asyncio.to_thread(metrics.exposition, facts)

    return Services(
        intake=_intake(node),
        access=Access(node.directory, node.clock),
        store=node.store,
        controls=node.store,
        api_keys=ApiKeys(node.store, node.directory, clock=node.clock, ids=node.ids),
        domains=Domains(
            node.store,
            node.directory,
            sealer=node.sealer,
            resolver=Resolver(),
            clock=node.clock,
            ids=node.ids,
        ),
        relays=Relays(
            node.store,
            node.directory,
            sealer=node.sealer,
            connections=settings.delivery.connections,
            clock=node.clock,
            ids=node.ids,
        ),
        sandbox=Sandbox(node.store, renderer),
        directory=node.directory,
        health=health,
        clock=node.clock,
        ids=node.ids,
        read_content=read_content,
        alarms=metrics.alarms,
        exposition=exposition,
        public_url=settings.node.public_url or f"http://{settings.http.listen}",
        durability=settings.store.durability,
        limits=ApiLimits(
            body_bytes=settings.http.body_bytes,
            requests=settings.limits.requests,
            bodies_bytes=settings.limits.body_bytes,
            schedule_days=settings.intake.schedule_days,
        ),
    )


@contextlib.asynccontextmanager
async def open_doors(
    node: Node, inherited: Mapping[str, int], metrics: Metrics
) -> AsyncIterator[None]:
    """Serve the API on the inherited sockets (or on its own, when started by hand)."""
    settings = node.settings
    threads = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
    health = _health(node)
    services = _services(node, metrics, threads, health)
    sockets = {
        name: adopt(inherited[name]) for name in ("api", "operator", "admin") if name in inherited
    }
    if "api" not in sockets:
        sockets["api"] = listen(Endpoint.parse(settings.http.listen))
    builders = {"api": build_api, "operator": build_operator, "admin": build_admin}
    server = HttpServer(
        HttpLimits(
            request_timeout=settings.http.request_s,
            keep_alive=settings.http.keep_alive_s,
            connections=settings.limits.connections,
        )
    )
    tasks = []
    for name, sock in sockets.items():
        ready = asyncio.Event()
        tasks.append(
            asyncio.create_task(server.serve(builders[name](services), [sock], ready=ready))
        )
        await ready.wait()
    try:
        yield
        health.drain()
        await server.shutdown(settings.http.shutdown_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        threads.shutdown(wait=False)
