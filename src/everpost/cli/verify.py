"""`everpost verify`: whether everything that was accepted is accounted for."""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from everpost.assembly.places import Places
from everpost.cli.checked_store import store_of
from everpost.cli.client import json_option
from everpost.cli.exits import FAILED, Failed
from everpost.cli.root import Command
from everpost.cli.setup import node_options, settings_of
from everpost.cli.show import Printer

if TYPE_CHECKING:
    from everpost.cli.checked_store import CheckedStore
    from everpost.cli.verifying import Outcome
    from everpost.clock import Clock
    from everpost.config import Settings
    from everpost.ledger import Repaired
    from everpost.store.auditing import Totals
    from everpost.store.interface import Store

__all__ = ["command"]

_SHOWN = 20


@click.command(cls=Command, name="verify")
@node_options
@click.option(
    "--repair",
    is_flag=True,
    help="First mend what is safe to mend; each repair is in the audit table.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=None,
    help="Processes that check a large store. Default: one a processor core, at most 4.",
)
@json_option
def command(
    config: Path | None, data: Path | None, repair: bool, processes: int | None, as_json: bool
) -> None:
    """Check the whole store: that nothing accepted is lost or has two ends, that timelines have no
    gap, that stored content is what was accepted, that the metrics are the rows. A server may be
    running. Exit code 1: something was found."""
    from everpost.store.interface import StoreError

    settings = settings_of(config, os.environ, {"node.data": data})
    store = store_of(settings)
    if missing := store.missing():
        raise Failed(missing)
    try:
        repaired = _repair(store, settings, as_json=as_json) if repair else None
        outcome = _verify(store, processes or min(os.cpu_count() or 1, 4), as_json=as_json)
    except (StoreError, OSError) as error:
        raise Failed(f"{store} cannot be checked: {error}") from error
    out = Printer(as_json=as_json)
    if as_json:
        out.json(_document(store, outcome, repaired))
    else:
        _show(out, outcome, repaired)
    if outcome.findings.total or not outcome.checked.complete:
        click.get_current_context().exit(FAILED)


def _verify(store: "CheckedStore", processes: int, *, as_json: bool) -> "Outcome":
    from everpost.cli.verifying import verify_store

    with _progress("checking", on=not as_json and sys.stderr.isatty()) as each:
        return verify_store(store, processes=processes, each=each)


@contextmanager
def _progress(doing: str, *, on: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; silent unless `on`."""
    if not on:
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of or None)


def _repair(store: "CheckedStore", settings: "Settings", *, as_json: bool) -> "Repaired":
    from everpost.ids import IdMaker
    from everpost.ledger import repair

    folder = Places(settings.node.data).set_aside

    async def mend(opened: "Store", clock: "Clock") -> "Repaired":
        owner = IdMaker(clock.now, secrets.token_bytes)()
        with _progress("mending", on=not as_json and sys.stderr.isatty()) as each:
            return await repair(
                opened, owner=owner, clock=clock, folder=folder, each=lambda done: each(done, 0)
            )

    async def mend_ours() -> "Repaired":
        auditor = store.auditor()
        try:
            await auditor.audit_bounds(1)  # opening a store would bring an old one up to date
        finally:
            await auditor.close()
        return await store.opened(settings, mend)

    return asyncio.run(mend_ours())


def _document(
    store: "CheckedStore", outcome: "Outcome", repaired: "Repaired | None"
) -> dict[str, Any]:
    import msgspec

    findings, checked = outcome.findings, outcome.checked
    return {
        "store": str(store),
        "consistent": not findings.total and checked.complete,
        "seconds": round(outcome.seconds, 3),
        "checked": msgspec.to_builtins(checked),
        "totals": [] if outcome.totals is None else _totals(outcome.totals),
        "findings": {
            "total": findings.total,
            "by_kind": dict(sorted(findings.counts.items())),
            "first": [finding.as_json() for finding in findings.kept],
        },
        "repaired": None if repaired is None else msgspec.to_builtins(repaired),
    }


def _totals(totals: "Totals") -> list[dict[str, Any]]:
    """A row a project and state, with the tally that the metrics show; `accepted` has no rows of
    its own: it is the sum of the others."""
    from everpost.store.auditing import ACCEPTED

    rows = dict(totals.rows)
    for (project, _), n in totals.rows.items():
        rows[project, ACCEPTED] = rows.get((project, ACCEPTED), 0) + n
    return [
        {
            "project": project,
            "state": state,
            "recipients": rows.get((project, state), 0),
            "tally": totals.tallies.get((project, state), 0),
        }
        for project, state in sorted(rows.keys() | totals.tallies.keys())
    ]


def _show(out: Printer, outcome: "Outcome", repaired: "Repaired | None") -> None:
    from everpost.ledger import KINDS
    from everpost.ledger.findings import said

    findings, checked = outcome.findings, outcome.checked
    if repaired is not None:
        _show_repairs(out, repaired)
    if outcome.totals is not None:
        out.table(
            ["project", "state", "recipients", "tally"],
            (list(row.values()) for row in _totals(outcome.totals)),
            empty="Nothing was accepted yet.",
        )
        out.line()
    out.line(
        f"Checked {checked.messages} messages, {checked.recipients} recipients, "
        f"{checked.events} events, {checked.attempts} attempts, {checked.contents} contents, "
        f"{checked.parts} attachments in {outcome.seconds:.1f} s."
    )
    if not checked.complete:
        out.line("Not all could be read: what is not mentioned below may be damaged, too.")
    if not findings.total:
        if checked.complete:
            out.line("Nothing is wrong.")
        return
    out.line()
    out.table(
        ["finding", "count", "invariant", "what it means", "--repair"],
        (
            [kind, n, KINDS[kind].invariant, KINDS[kind].means, _remedy(outcome, kind)]
            for kind, n in sorted(findings.counts.items())
        ),
    )
    out.line()
    for finding in findings.kept[:_SHOWN]:
        out.line(said(finding))
    if findings.total > _SHOWN:
        out.line(f"… and {findings.total - _SHOWN} more; --json has the first of each kind.")


def _remedy(outcome: "Outcome", kind: str) -> str:
    from everpost.ledger import KINDS

    mends = any(each.mends for each in outcome.findings.kept if each.kind == kind)
    return KINDS[kind].repair if mends else "no"


def _show_repairs(out: Printer, repaired: "Repaired") -> None:
    out.line(
        f"Repaired: {repaired.held} recipients held, {repaired.taken_back} claims taken back, "
        f"{repaired.queued} queued where they are found, {repaired.set_aside} rows set aside, "
        f"{repaired.tallies} tallies corrected."
    )
    if repaired.set_aside:
        out.line(f"What was set aside is in {repaired.kept_in}")
    if repaired.busy:
        out.line("Another repair is under way: the tallies were left to it.")
    out.line()
