"""Parts that several roles are put together from."""

import secrets
from concurrent.futures import ThreadPoolExecutor

from everpost.assembly.node import Node
from everpost.catalog import Relays
from everpost.config import Settings
from everpost.dispatch import Renderer
from everpost.intake import Intake, Limits
from everpost.model.message import Assurance
from everpost.store.interface import Accepting

__all__ = ["gives", "intake_of", "relays_of", "renderer_of"]


def gives(settings: Settings) -> Assurance:
    """What an answer of success of the store means, by these settings."""
    if not settings.postgres.url:
        return Assurance(settings.store.durability.value)
    return Assurance.REPLICATED if settings.postgres.standbys else Assurance.COMMITTED


def intake_of(
    node: Node, accepting: Accepting | None = None, strict: Accepting | None = None
) -> Intake:
    """Into the store itself, or by these."""
    settings = node.settings.intake
    return Intake(
        store=node.store if accepting is None else accepting,
        strict=strict,
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
        gives=gives(node.settings),
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
