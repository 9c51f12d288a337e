"""Fills a queue while no service runs: much mail at once, of any project, stream and priority."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from everpost.assembly.node import Node, open_node
from everpost.config import Settings
from everpost.config.settings import Node as NodeSettings
from everpost.model.message import Address, Content, NewMessage, NewRecipient, Priority
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import DomainRow, ProjectRow, StreamRow

__all__ = ["add_project", "add_stream", "filling", "queue"]

_DAY_MS = 86_400_000
_AT_ONCE = 1_000


@asynccontextmanager
async def filling(data: Path) -> AsyncIterator[Node]:
    """The node of a data directory that nobody serves now."""
    node = await open_node(Settings(node=NodeSettings(data=data)), {})
    try:
        yield node
    finally:
        await node.store.close()


async def add_project(node: Node, project: int, *, weight: int = 1) -> None:
    """With a transactional stream, a domain of its own, and a data key."""
    row = ProjectRow(
        id=project,
        name=f"project{project}",
        sandbox=False,
        created_at=node.clock.now(),
        weight=weight,
    )
    domain = DomainRow(
        id=node.ids(), project=project, name=_domain(project), status="verified",
        signing="unsigned", trusted=True, created_at=node.clock.now(),
    )  # fmt: skip
    for each in (row, domain):
        await node.store.put(each, actor="test", action="add")
    await add_stream(node, project, Priority.TRANSACTIONAL.value)
    wrapped = node.sealer.new_data_key(project)
    node.sealer.add(await node.store.add_data_key(project, wrapped), project, wrapped)


async def add_stream(node: Node, project: int, name: str) -> None:
    """Of transactional mail."""
    row = StreamRow(
        project=project, name=name, priority=Priority.TRANSACTIONAL.value,
        in_doubt=InDoubtPolicy.RESEND, lifetime_ms=5 * _DAY_MS, retry_first_ms=60_000,
        retry_cap_ms=14_400_000,
    )  # fmt: skip
    await node.store.put(row, actor="test", action="add")


async def queue(
    node: Node,
    rows: int,
    *destinations: str,
    project: int = 1,
    priority: Priority = Priority.TRANSACTIONAL,
    stream: str | None = None,
    text: str = "Hello.\n",
    html: str | None = None,
    written: Callable[[int], None] | None = None,
) -> None:
    """Messages 0, 1, …, to the destinations in turn. Their Message-IDs are
    `<number>.<project>.<stream>@example.test`. `written` is told of so many more."""
    lane = _Lane(project, priority, stream or priority.value, text, html)

    def some(at: int) -> Iterator[NewMessage]:
        for n in range(at, min(at + _AT_ONCE, rows)):
            yield _message(node, n, destinations[n % len(destinations)], lane)

    for at in range(0, rows, _AT_ONCE):
        await node.store.accept(project, list(some(at)))
        if at % (_AT_ONCE * 10) == 0:
            await node.store.checkpoint()
        if written is not None:
            written(min(_AT_ONCE, rows - at))


@dataclass(frozen=True, slots=True)
class _Lane:
    """What all of one call share."""

    project: int
    priority: Priority
    stream: str
    text: str
    html: str | None


def _domain(project: int) -> str:
    return "example.test" if project == 1 else f"project{project}.test"


def _message(node: Node, n: int, to: str, lane: _Lane) -> NewMessage:
    now, id_ = node.clock.now(), node.ids()
    address, sender = f"user{n}@{to}", f"many@{_domain(lane.project)}"
    content = Content(
        sender=Address(sender), to=(Address(address),), subject=f"Message {n}",
        message_id=f"{n}.{lane.project}.{lane.stream}@example.test", date=now // 1000, boundary="b",
        text=lane.text, html=lane.html,
    )  # fmt: skip
    key_id, sealed = node.sealer.seal(lane.project, msgspec.msgpack.encode(content), context=id_)
    return NewMessage(
        id=id_, project=lane.project, stream=lane.stream, priority=lane.priority, sealed=sealed,
        key_id=key_id, size=2 * len(sealed), message_id=content.message_id,
        sender=sender, subject=content.subject, to=(address,),
        recipients=(NewRecipient(address, to),), not_before=now, expires_at=now + 5 * _DAY_MS,
        in_doubt=InDoubtPolicy.RESEND, return_token=b"12345678",
    )  # fmt: skip
