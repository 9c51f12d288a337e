"""Parts that several roles are put together from."""

import secrets
from concurrent.futures import ThreadPoolExecutor

from everpost.assembly.node import Node
from everpost.catalog import Relays
from everpost.dispatch import Renderer
from everpost.intake import Intake, Limits

__all__ = ["intake_of", "relays_of", "renderer_of"]


def intake_of(node: Node) -> Intake:
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


def relays_of(node: Node) -> Relays:
    return Relays(
        node.store,
        node.directory,
        sealer=node.sealer,
        connections=node.settings.delivery.connections,
        clock=node.clock,
        ids=node.ids,
    )


def renderer_of(node: Node, threads: ThreadPoolExecutor) -> Renderer:
    return Renderer(
        sealer=node.sealer,
        directory=node.directory,
        contents=node.store.content,
        parts=node.store.parts,
        threads=threads,
        clock=node.clock,
    )
