"""What this door is given to work with; `assembly` fills it in."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from everpost.access import Access
from everpost.api.admission import Admission
from everpost.catalog import ApiKeys, Applier, Domains, Pools, Projects, Relays, Routes, Streams
from everpost.clock import Clock
from everpost.ids import Id
from everpost.intake import Intake
from everpost.journal import Lookup
from everpost.model.credential import Credential
from everpost.model.message import Content, Durability
from everpost.monitoring.health import Health
from everpost.store.cluster import Nodes, Standing
from everpost.store.directory import Directory
from everpost.store.interface import Controls, MessageRow, Note, Reading, WorkerRow

__all__ = ["ApiLimits", "Records", "SandboxMail", "Services"]


class Records(Reading, Nodes, Standing, Protocol):
    """Reading, the audit table, who is at work, and what they noted."""

    async def audit(
        self, *, limit: int, after: int | None = None, before: int | None = None
    ) -> Sequence[Mapping[str, Any]]: ...

    async def workers(self) -> Sequence[WorkerRow]: ...

    async def noted(
        self, kinds: Sequence[str], *, after: int = 0
    ) -> tuple[int, Sequence[Note]]: ...


class SandboxMail(Protocol):
    """Mail that the sandbox caught."""

    async def raw(self, credential: Credential, message: Id) -> bytes:
        """The composed message. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Where one process refuses work rather than fall over. Sizes in bytes."""

    body_bytes: int = 55 * 1024 * 1024
    """Largest request body (413); base64 of 40 MB must pass (COMPAT §14)."""
    settings_bytes: int = 64 * 1024
    """Largest body of an endpoint that takes no mail (413)."""
    document_bytes: int = 4 * 1024 * 1024
    """Largest document of what there should be (413)."""
    requests: int = 512
    """Requests in hand at once, of one listener; more answer 503. Emails have `admission`, too."""
    schedule_days: float = 30.0
    """How far ahead an email may be moved."""
    gone_ms: int = 10_000
    """A node without a sign of life for so long is shown as gone."""


def _one_thread() -> Executor:
    return ThreadPoolExecutor(1, thread_name_prefix="words")


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that handlers may call. `read_content` unseals what a message says (its large
    attachments left out), None where that is damaged; `admission` is shared with the listeners;
    `alarms` names the alarms that stand; `exposition` is what /metrics answers."""

    intake: Intake
    access: Access
    store: Records
    controls: Controls
    api_keys: ApiKeys
    domains: Domains
    relays: Relays
    pools: Pools
    routes: Routes
    streams: Streams
    projects: Projects
    applier: Applier
    sandbox: SandboxMail
    directory: Directory
    health: Health
    clock: Clock
    ids: Callable[[], Id]
    read_content: Callable[[MessageRow], Content | None]
    alarms: Callable[[], Sequence[str]]
    exposition: Callable[[], Awaitable[bytes]]
    public_url: str
    admission: Admission
    durability: Durability = Durability.COMMITTED
    journal: Lookup | None = None
    """What waits for the store; None: nothing ever does."""
    engine: str = "sqlite"
    limits: ApiLimits = field(default_factory=ApiLimits)
    words: Executor = field(default_factory=_one_thread)
    """Where times in English are read. One thread: the library behind it is used by one at a time,
    and a flood of them must not take the threads of others."""
