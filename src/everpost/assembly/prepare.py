"""Before the roles start: schema, master key, first API key. Prints one JSON object."""

import asyncio
import json
import os
import shutil
import sys

from everpost import telemetry
from everpost.assembly.clustering import rescuer_of
from everpost.assembly.engine import patiently
from everpost.assembly.keys import FIRST_KEY, first_key
from everpost.assembly.node import Node, open_node
from everpost.config import Settings, load
from everpost.dispatch.dots import is_alive
from everpost.model.errors import Refusal
from everpost.recovery.spawning import die_with_parent
from everpost.security import SealingError, token_hash
from everpost.store.interface import StoreError

__all__ = ["main"]


async def _prepare() -> dict[str, object]:
    settings = load(None, os.environ, {})
    return await patiently(settings, lambda: _prepare_once(settings))


async def _prepare_once(settings: Settings) -> dict[str, object]:
    node = await open_node(settings, os.environ, alone=True)
    try:
        _forget_the_dead(node)
        _report_torn(node)
        await rescuer_of(node).lost_workers()
        await _sweep_logs(node)
        given = os.environ.get(FIRST_KEY) or None
        token = await first_key(
            node.store, node.directory, given=given, clock=node.clock, ids=node.ids
        )
        now = node.directory.now
        return {
            "key": None if given else token,
            "chosen": given is not None and token is not None,
            "ignored": given is not None and token_hash(given) not in now.keys,
            "sandbox": not now.domains and not now.relays,
            "sender": next((d.name for d in now.domains.values() if d.status == "verified"), None),
        }
    finally:
        await node.store.close()


def _forget_the_dead(node: Node) -> None:
    """Metrics and wake-up sockets of processes of an earlier run mean nothing any more."""
    shutil.rmtree(node.places.metrics, ignore_errors=True)
    for path in node.places.run.glob("*.wake"):
        path.unlink(missing_ok=True)
    node.places.make()


def _report_torn(node: Node) -> None:
    """What the log of the last run has lost (F10), for upkeep's alarm; until the next start."""
    torn = node.torn
    node.places.torn.unlink(missing_ok=True)
    if torn is not None:
        telemetry.event(
            "store.log_torn", level="error", recovered=torn.recovered, dropped=torn.dropped,
            transactions=torn.transactions, said=torn.said,
        )  # fmt: skip
        node.places.torn.write_text(torn.said, encoding="utf-8")


async def _sweep_logs(node: Node) -> None:
    """Dot logs that no registered process of this node writes."""
    workers = await node.store.workers()
    known = {worker.dots for worker in workers if worker.node == node.name}
    for path in node.places.run.glob("dots-*"):
        if path.name not in known and not is_alive(path):
            path.unlink(missing_ok=True)


def main() -> int:
    die_with_parent()
    try:
        prepared = asyncio.run(_prepare())
    except (StoreError, SealingError, Refusal, OSError) as error:
        print(f"Everpost cannot start: {error}", file=sys.stderr)  # noqa: T201
        telemetry.event("prepare.failed", error=repr(error))
        return 1
    print(json.dumps(prepared))  # noqa: T201  read by the supervisor
    return 0


if __name__ == "__main__":
    sys.exit(main())
