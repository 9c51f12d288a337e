"""The load on the peers: Postfix's own `smtp-source`, sixteen sessions, a connection a message."""

import time
from collections.abc import Sequence

from bench.far_end import FarEnd
from bench.figures import WARM_UP, Figures, Work
from bench.processes import finish, measure

__all__ = ["drive"]

TIMEOUT_S = 300.0


def drive(work: Work, *, port: int, roots: Sequence[int], sink: FarEnd) -> Figures:
    """Send `work` to the server on 127.0.0.1:`port` whose process trees are `roots`, and wait
    until the sink has it all."""
    _submit(port, WARM_UP, work.size)
    sink.wait(WARM_UP, 60)
    sink_cpu = sink.cpu_s
    with measure(roots) as usage:
        began = time.time()
        generator = _submit(port, work.messages, work.size)
        accepted = time.time()
        ended = sink.wait(WARM_UP + work.messages, TIMEOUT_S)
    thousands = work.messages / 1000
    return Figures(
        messages=work.messages,
        accepted_per_s=work.messages / (accepted - began),
        delivered_per_s=work.messages / (ended - began),
        cpu_s_per_1000=usage.cpu_s / thousands,
        peak_mb=usage.peak_mb,
        generator_cpu_s_per_1000=generator / thousands,
        sink_cpu_s_per_1000=(sink.cpu_s - sink_cpu) / thousands,
    )


def _submit(port: int, messages: int, size: int) -> float:
    """Seconds of CPU it took."""
    _, used = finish(
        [
            *("smtp-source", "-s", "16", "-l", str(size), "-m", str(messages)),
            *("-f", "bench@example.test", "-t", "user@dest.test", f"127.0.0.1:{port}"),
        ],
        seconds=TIMEOUT_S,
    )
    return used
