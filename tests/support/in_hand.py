"""Claims and work of no store: what dispatch has in hand, for its deciders' tests."""

from everpost.dispatch.work import Work
from everpost.ids import Id
from everpost.model.pool import DEFAULT_POOL
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import Claim, Claimed

__all__ = ["claim", "claimed", "work"]


def claim(
    n: int, destination: str, *, recipient: int = 1, project: int = 1, stream: str = "transactional"
) -> Claim:
    return Claim(
        message=n.to_bytes(16, "big"),
        n=recipient,
        term=1,
        deadline=0,
        address=f"a@{destination}",
        destination=destination,
        route=f"{project}/{stream}/{destination}",
        attempts=0,
        crashes=0,
        not_before=0,
        expires_at=1,
        created_at=0,
    )


def claimed(
    n: int,
    *destinations: str,
    project: int = 1,
    stream: str = "transactional",
    size: int = 2_000,
    sender: str = "Sender <sender@sender.test>",
    tags: str = "[]",
    only: Id | None = None,
) -> Claimed:
    """Message `n`, a recipient at each destination."""
    return Claimed(
        message=n.to_bytes(16, "big"),
        project=project,
        stream=stream,
        sender=sender,
        key_id=1,
        content_id=b"",
        sealed=b"",
        size=size,
        in_doubt=InDoubtPolicy.RESEND,
        return_token=b"",
        sandbox=False,
        body_hashes={},
        claims=tuple(
            claim(n, to, recipient=at, project=project, stream=stream)
            for at, to in enumerate(destinations, 1)
        ),
        revision=1,
        tags=tags,
        only=only,
    )


def work(
    n: int,
    destination: str,
    size: int = 2_000,
    *,
    broadcast: bool = False,
    pool: str = DEFAULT_POOL,
    project: int = 1,
    stream: str | None = None,
    only: Id | None = None,
) -> Work:
    name = stream or ("broadcast" if broadcast else "transactional")
    what = claimed(n, destination, size=size, project=project, stream=name, only=only)
    return Work(what, pool=pool, broadcast=broadcast)
