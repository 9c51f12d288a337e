"""What one run of one case gives, and what is to be done in it."""

from dataclasses import dataclass

__all__ = ["WARM_UP", "Failure", "Figures", "Round", "Work"]

WARM_UP = 200
"""Messages before the clock starts, the same for everybody: processes and connections are up."""


@dataclass(frozen=True, slots=True)
class Work:
    """Messages of one case. `size`: bytes on the wire, about. `batch`: messages a request.
    `rate`: messages a second, 0 for as fast as they are taken. `signing`: unsigned, rsa, ed25519.
    """

    messages: int
    size: int = 2048
    batch: int = 1
    destinations: int = 1
    signing: str = "unsigned"
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Rates are messages a second, CPU is seconds per 1,000 messages, memory is the highest sum of
    proportional set sizes in MiB. `cpu` and `peak_mb` are of all processes of the one measured and
    of nobody else; the load generator's and the far end's CPU stand apart. Of a case of two kinds
    of mail, p50 and p99 are of the urgent kind and `delivered_per_s` is of the other, with what
    they are without each other: `idle_p99_ms`, `lone_per_s`."""

    messages: int
    accepted_per_s: float
    delivered_per_s: float
    cpu_s_per_1000: float
    peak_mb: float
    generator_cpu_s_per_1000: float
    sink_cpu_s_per_1000: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    idle_p99_ms: float | None = None
    lone_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that could not be measured, and why."""

    reason: str


Round = dict[str, Figures | Failure]
"""Case name -> what came of it in this round."""
