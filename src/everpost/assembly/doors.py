"""The API role: its rooms, its listeners, and how they close."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from everpost import telemetry
from everpost.access import Access
from everpost.api import (
    MAIL,
    Admission,
    AdmissionLimits,
    ApiLimits,
    HttpLimits,
    HttpServer,
    Services,
    build_admin,
    build_api,
    build_operator,
)
from everpost.assembly.journalling import Journalling
from everpost.assembly.node import Node
from everpost.assembly.parts import intake_of, relays_of, renderer_of
from everpost.assembly.places import Places
from everpost.assembly.watch import Watch, free_bytes
from everpost.catalog import ApiKeys, Applier, Domains, Pools, Projects, Routes, Streams
from everpost.config import Settings
from everpost.dispatch import Sandbox
from everpost.intake import Intake
from everpost.model.message import Content, Durability
from everpost.monitoring.health import Facts, Health, HealthLimits
from everpost.monitoring.metrics import Metrics
from everpost.monitoring.room import Room
from everpost.net.listener import Endpoint, ListenError, adopt, listen
from everpost.recovery.children import read_children
from everpost.security import Unsealable
from everpost.store.cluster import StoreState
from everpost.store.interface import MessageRow

__all__ = ["open_doors"]

_decode = msgspec.msgpack.Decoder(Content).decode


def _admission(node: Node) -> Admission:
    limits = node.settings.limits
    return Admission(
        AdmissionLimits(
            requests=limits.requests, body_bytes=limits.body_bytes, delay_s=limits.delay_s
        ),
        now=node.clock.monotonic,
        chance=node.rng.random,
        room=Room(limits.free_bytes),
    )


def _health(node: Node, room: Room, journalling: Journalling | None) -> Health:
    async def gather() -> Facts:
        if not node.shared:
            await node.store.revision()
        free = await asyncio.to_thread(free_bytes, node.places.data)
        now, state = node.directory.now, _state(node)
        return Facts(
            store_writable=state.reachable and state.writable,
            store_sound=not telemetry.alarm("store_corrupt").raised,
            store_durable=state.durable,
            store_problems=state.problems,
            journal=journalling is not None and journalling.taking(),
            free_bytes=free,
            disk_low=room.low,
            relays=sum(relay.state == "enabled" for relay in now.relays),
            sandbox=not now.relays and not now.domains,
            clock_off_ms=node.off_ms(),
        )

    limits = HealthLimits(free_bytes=node.settings.limits.free_bytes)
    return Health(gather, node.clock, limits=limits)


def _state(node: Node) -> StoreState:
    """What the store last saw of itself. The embedded one's writer raises an alarm, and tries again
    by itself until it can."""
    if node.shared:
        return node.store.state()
    return StoreState(writable=not telemetry.alarm("store_unavailable").raised)


def _services(
    node: Node,
    metrics: Metrics,
    threads: ThreadPoolExecutor,
    health: Health,
    admission: Admission,
    *,
    journalling: Journalling | None,
) -> Services:
    settings = node.settings
    renderer = renderer_of(node, threads)

    def read_content(row: MessageRow) -> Content | None:
        if row.sealed is None:
            return None
        try:
            return _decode(node.sealer.unseal(row.key_id, row.sealed, context=row.content_id))
        except Unsealable as error:
            telemetry.alarm("content_unreadable").raise_(message=row.id, error=str(error))
            return None

    async def exposition() -> bytes:
        facts = await node.store.facts()
        return await asyncio.to_thread(metrics.exposition, facts, _restarts(node))

    return Services(
        intake=_intake(node, journalling),
        access=Access(node.directory, node.clock),
        store=node.store,
        controls=node.store,
        api_keys=ApiKeys(node.store, node.directory, clock=node.clock, ids=node.ids),
        domains=Domains(
            node.store,
            node.directory,
            sealer=node.sealer,
            resolver=node.resolver,
            clock=node.clock,
            ids=node.ids,
        ),
        relays=relays_of(node),
        pools=Pools(node.store, node.directory, clock=node.clock, ids=node.ids),
        routes=Routes(node.store, node.directory, clock=node.clock, ids=node.ids),
        streams=Streams(node.store, node.directory),
        projects=Projects(node.store, node.directory),
        applier=Applier(
            node.store, node.directory, sealer=node.sealer, clock=node.clock, ids=node.ids
        ),
        sandbox=Sandbox(node.store, renderer),
        directory=node.directory,
        health=health,
        clock=node.clock,
        ids=node.ids,
        read_content=read_content,
        alarms=metrics.alarms,
        exposition=exposition,
        admission=admission,
        public_url=settings.node.public_url or f"http://{settings.http.listen}",
        durability=Durability.COMMITTED if settings.postgres.url else settings.store.durability,
        journal=None if journalling is None else journalling.lookup,
        engine="postgres" if node.shared else "sqlite",
        limits=ApiLimits(
            body_bytes=settings.http.body_bytes,
            requests=settings.limits.requests,
            schedule_days=settings.intake.schedule_days,
            gone_ms=int(settings.cluster.gone_s * 1000),
        ),
    )


def _intake(node: Node, journalling: Journalling | None) -> Intake:
    if journalling is None:
        return intake_of(node)
    return intake_of(node, journalling.accepting, journalling.accepting.strict)


def _restarts(node: Node) -> dict[str, int]:
    """By child, as the supervisor counts them; without one there are none."""
    try:
        facts = read_children(node.places.children)
    except OSError:
        return {}
    return {} if facts is None else {child.name: child.restarts for child in facts.children}


def _http_limits(settings: Settings) -> HttpLimits:
    http = settings.http
    return HttpLimits(
        connections=settings.limits.connections,
        head_bytes=http.head_bytes,
        headers=http.headers,
        head_timeout=http.head_s,
        request_timeout=http.request_s,
        min_rate=http.min_rate,
        min_rate_grace=http.min_rate_s,
        write_timeout=http.write_s,
        keep_alive=http.keep_alive_s,
    )


def _sockets(
    settings: Settings, places: Places, inherited: Mapping[str, int], roles: Collection[str]
) -> dict[str, socket.socket]:
    """The inherited listeners; a process that was started by hand makes its own. Raises
    ListenError."""
    found = {
        name: adopt(inherited[name]) for name in ("api", "operator", "admin") if name in inherited
    }
    if "notify" in inherited:
        return found
    wanted: dict[str, Endpoint] = {}
    if "api" in roles and "api" not in found:
        found["api"] = listen(Endpoint.parse(settings.http.listen))
        wanted["operator"] = Endpoint(path=str(places.operator_socket))
    if settings.http.admin_listen and "admin" not in found:
        wanted["admin"] = Endpoint.parse(settings.http.admin_listen)
    for name, endpoint in wanted.items():
        try:
            found[name] = listen(endpoint)
        except ListenError as error:  # roles of one machine, started one by one
            telemetry.event(f"{name}.unavailable", level="warning", error=str(error))
    return found


@contextlib.asynccontextmanager
async def open_doors(
    node: Node,
    inherited: Mapping[str, int],
    metrics: Metrics,
    *,
    roles: Collection[str] = ("api",),
    journalling: Journalling | None = None,
    leaving: asyncio.Event,
) -> AsyncIterator[None]:
    """Serve what the roles have to serve: the API, and where metrics and health are looked at. Once
    `leaving` is set it says that it is not ready, and serves."""
    settings = node.settings
    threads = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
    admission = _admission(node)
    health = _health(node, admission.room, journalling)
    services = _services(node, metrics, threads, health, admission, journalling=journalling)
    sockets = _sockets(settings, node.places, inherited, roles)
    builders = {"api": build_api, "operator": build_operator, "admin": build_admin}
    server = HttpServer(_http_limits(settings), admission=admission)
    watch = Watch(
        data=node.places.data,
        admission=admission,
        server=server,
        connections=settings.limits.connections,
    )
    await watch.look()
    metrics.flush()  # its files are open before descriptors can run out
    tasks = [
        asyncio.create_task(watch.run()),
        asyncio.create_task(_leave(leaving, health, server)),
    ]
    for name, sock in sockets.items():
        ready = asyncio.Event()
        mail = MAIL if name == "api" else frozenset[bytes]()
        serving = server.serve(builders[name](services), [sock], ready=ready, mail=mail)
        tasks.append(asyncio.create_task(serving))
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


async def _leave(leaving: asyncio.Event, health: Health, server: HttpServer) -> None:
    await leaving.wait()
    health.drain()
    server.leave()
