"""The one place that picks parts and joins them.

Promises: nothing below knows which engine, server or clock it was given. Rules and protocols must
not live here. Imports are late, so that the supervisor's process stays small.
"""

from collections.abc import Mapping, Sequence

from everpost.config import Origin, Settings

__all__ = ["ROLES", "run_roles", "serve"]

ROLES = ("api", "dispatch", "upkeep")


def serve(settings: Settings, origin: Origin) -> int:
    """Run everything on this machine under a supervisor; the exit code. `origin`: where the
    settings are read again at a reload."""
    from everpost.assembly.house import serve as run

    return run(settings, origin)


def run_roles(
    settings: Settings,
    roles: Sequence[str],
    inherited: Mapping[str, int],
    parent_pipe: int | None,
    name: str | None = None,
) -> int:
    """Run `roles` in this process until SIGTERM; the exit code. `name` tells it from others of its
    kind (`dispatch-1`), in metrics.

    `inherited` maps names to descriptors: listening sockets `api`, `admin`, `operator`, `peers`,
    and the pipe `notify`, on which readiness is told; without that pipe the process was started by
    hand and listens by itself. `parent_pipe` closes when the supervisor is gone. The exit code: 0
    after SIGTERM, 1 on a fault.
    """
    from everpost.assembly.roles import run

    return run(settings, roles, inherited, parent_pipe, name or "-".join(roles))
