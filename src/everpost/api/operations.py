"""How the installation does: the queue, the audit table, health, metrics."""

from typing import Annotated

from everpost.api.answers import Answer, encode, problem, timestamp
from everpost.api.nodes import nodes_of, store_of
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import (
    AuditAnswer,
    DispatcherAnswer,
    HealthAnswer,
    ListAnswer,
    RootAnswer,
    StatusAnswer,
)
from everpost.catalog.checks import must_operate
from everpost.monitoring.health import Judgement

__all__ = ["audit", "detail", "live", "metrics", "ready", "root", "status"]


async def status(services: Services, request: Request) -> StatusAnswer:
    """The queue by state, the oldest mail that waits, the alarms that stand, the dispatchers,
    the nodes, the store."""
    must_operate(request.credential)
    facts = await services.store.facts()
    judgement = await services.health.judgement()
    return StatusAnswer(
        accepted=facts.accepted,
        states=dict(facts.states),
        due=facts.due,
        oldest_due_seconds=facts.oldest_due_ms / 1000,
        alarms=list(services.alarms()),
        durability=services.durability.value,
        ready=judgement.ready,
        dispatchers=[
            DispatcherAnswer(
                pid=worker.pid, started_at=timestamp(worker.started_at), node=worker.node or None
            )
            for worker in await services.store.workers()
            if worker.role == "dispatch"
        ],
        nodes=await nodes_of(services),
        store=store_of(services),
    )


async def audit(services: Services, request: Request) -> ListAnswer[AuditAnswer]:
    """Who changed what, newest first."""
    must_operate(request.credential)
    page = request.positions()
    found = await services.store.audit(limit=page.limit + 1, after=page.after, before=page.before)
    more = len(found) > page.limit
    # What is over lies at the far end: the older one, or the newer one when the page goes back.
    rows = found[-page.limit :] if page.before is not None else found[: page.limit]
    return ListAnswer(
        [
            AuditAnswer(
                position=row["position"],
                created_at=timestamp(row["at"]),
                actor=row["actor"],
                action=row["action"],
                kind=row["kind"],
                id=row["object"],
                detail=row["detail"],
            )
            for row in rows
        ],
        more,
    )


async def live(services: Services, request: Request) -> HealthAnswer:
    """This process answers. Nothing else is looked at: a restart would not mend a full disk."""
    return HealthAnswer("alive")


async def ready(services: Services, request: Request) -> Annotated[Answer, HealthAnswer]:
    """Whether this node can accept mail now: 200, or 503 with the names of what keeps it."""
    judgement = await services.health.judgement()
    if judgement.ready:
        return Answer(200, encode(HealthAnswer("ready")))
    reasons = ", ".join(judgement.failing)
    return problem(
        503, "service_unavailable", f"Not ready: {reasons}.", headers=[(b"retry-after", b"1")]
    )


async def detail(services: Services, request: Request) -> Annotated[Answer, Judgement]:
    """Every check with its finding; 503 when the node is not ready."""
    judgement = await services.health.judgement()
    return Answer(200 if judgement.ready else 503, encode(judgement))


async def metrics(services: Services, request: Request) -> Annotated[Answer, str]:
    """All processes' metrics (Prometheus exposition format)."""
    text = await services.exposition()
    return Answer(200, text, content_type=b"text/plain; version=0.0.4; charset=utf-8")


async def root(services: Services, request: Request) -> Annotated[Answer, RootAnswer]:
    """Browsers go on to the documentation; others are told where it is."""
    if "text/html" in (request.header(b"accept") or ""):
        return Answer(307, b"{}", headers=[(b"location", b"/docs")])
    return Answer(200, encode(RootAnswer("everpost", "/docs", "/openapi.json")))
