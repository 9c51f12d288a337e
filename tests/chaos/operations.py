"""What a client does next: made by its seed alone, so that an address names its operation."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.chaos.sink import REFUSED

__all__ = [
    "DOMAIN",
    "WEIGHTS",
    "Message",
    "Operation",
    "Operations",
    "body_hash",
    "message_of",
    "text_of",
]

DOMAIN = "receiver.test"
"""Of all recipients."""

MOST_IN_BATCH = 100
WEIGHTS = {
    "send": 40,
    "unkeyed": 16,
    "group": 12,
    "later": 8,
    "batch": 36,
    "hang_up": 6,
    "unkeyed_batch": 2,
    "invalid_batch": 2,
}
_POLICIES = ("resend", "hold", "fail")


@dataclass(frozen=True, slots=True)
class Message:
    """`recipients` are elements: the local parts that it goes to. `wait_s`: it is scheduled so far
    ahead; 0 for at once."""

    name: str
    recipients: tuple[str, ...]
    policy: str = "resend"
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Operation:
    """`keyed`: sent under an idempotency key, `name`, until the answer is known; else once. `kind`:
    `send`, `unkeyed`, `group` (several recipients), `later`, `batch`, `unkeyed_batch`,
    `invalid_batch` (its last message has no sender) or `hang_up` (the answer is not awaited)."""

    name: str
    kind: str
    messages: tuple[Message, ...]

    @property
    def keyed(self) -> bool:
        return not self.kind.startswith(("unkeyed", "invalid", "hang_up"))

    @property
    def batch(self) -> bool:
        return self.kind.endswith("batch")


class Operations:
    """`next()` gives one after another, without end: the same of the same seed, whatever was chosen
    meanwhile. `choice` and `pick` are what a client does after the last one."""

    def __init__(self, seed: int, client: int, *, weights: Mapping[str, int] = WEIGHTS) -> None:
        self._weights = weights
        self._seed = f"{seed}/{client}"
        self._rng = random.Random(self._seed)
        self._after = self._rng
        self._client = client
        self._n = 0

    def next(self) -> Operation:
        rng = self._rng
        name = f"c{self._client}-{self._n}"
        self._n += 1
        # How much is chosen afterwards depends on the answers; what comes next must not.
        self._after = random.Random(f"{self._seed}/{name}")
        kind = rng.choices(list(self._weights), list(self._weights.values()))[0]
        count = rng.randint(40, MOST_IN_BATCH) if kind.endswith("batch") else 1
        people = rng.randint(2, 6) if kind == "group" else 1
        wait_s = round(rng.uniform(2, 4), 3) if kind == "later" else 0.0
        messages = tuple(
            Message(
                f"{name}.{n}",
                tuple(self._recipient(f"{name}.{n}.{r}") for r in range(people)),
                rng.choices(_POLICIES, (8, 1, 1))[0],
                wait_s,
            )
            for n in range(count)
        )
        return Operation(name, kind, messages)

    def choice(self, chance: float) -> bool:
        return self._after.random() < chance

    def pick(self, count: int) -> int:
        return self._after.randrange(count)

    def _recipient(self, element: str) -> str:
        return f"{REFUSED}{element}" if self._rng.random() < 0.03 else element


def message_of(element: str) -> str:
    """The message that an element belongs to."""
    return element.removeprefix(REFUSED).rpartition(".")[0]


def text_of(message: str) -> str:
    """The whole text of a message: no two are alike."""
    mark = hashlib.sha256(message.encode()).hexdigest()
    return f"{message}\n{mark}\n"


def body_hash(message: str) -> str:
    """SHA-256 of the body that arrives, in hex."""
    return hashlib.sha256(text_of(message).replace("\n", "\r\n").encode()).hexdigest()
