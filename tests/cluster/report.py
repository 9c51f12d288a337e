"""What a run was, and what is said of it: for people and for programs.

`python -m tests.cluster.report FOLDER…` writes kept runs as one Markdown table.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.checker import BROKEN, Verdict
from tests.cluster.gaps import Gap, Outage
from tests.cluster.nemesis import FAULTS

__all__ = ["Plan", "Result", "as_json", "idle", "summary", "table"]

_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate`: messages a second over all clients, at most; `other_python`: an interpreter with
    another version of Everpost, which a restart may bring (F41)."""

    seed: int
    seconds: float
    faults: tuple[str, ...] = FAULTS
    subject: str = "everpost"
    pooled: bool = False
    rate: float = 60.0
    clients: int = 12
    drain_s: float = 120.0
    other_python: str | None = None


@dataclass(slots=True)
class Result:
    """`accept`: nobody was acknowledged; `client`: one client was not. `early_reads`: of
    what only a journal had, at a node that had not got it. `aliases`: messages of a key that had
    been accepted elsewhere."""

    plan: Plan
    verdict: Verdict = field(default_factory=Verdict)
    accept: Gap = field(default_factory=Gap)
    client: Gap = field(default_factory=Gap)
    outages: list[Outage] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    cuts: int = 0
    problems: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    tormented_s: float = 0.0
    drained_s: float = 0.0
    released: list[str] = field(default_factory=list)
    aliases: int = 0
    claims: int = 0
    early_reads: int = 0

    @property
    def good(self) -> bool:
        return self.verdict.good and not (self.problems or self.findings or self.owners)


def idle(result: Result) -> list[str]:
    """Why a run shows nothing."""
    found = []
    if not result.verdict.acknowledged or not result.verdict.delivered:
        found.append("nothing was acknowledged, or nothing was delivered")
    if result.plan.faults and not any("(" not in name for name in result.faults):
        found.append("no fault was done")
    return found


def as_json(result: Result) -> str:
    return json.dumps({"good": result.good, **dataclasses.asdict(result)}, indent=2) + "\n"


def summary(result: Result) -> str:
    """A page of text."""
    plan, verdict = result.plan, result.verdict
    broken, gaps = verdict.broken, (result.accept.seconds, result.client.seconds)
    rows = [
        ("seed, faults for, subject", f"{plan.seed}, {result.tormented_s:g} s, {plan.subject}"),
        ("by way of PgBouncer", "yes" if plan.pooled else "no"),
        ("messages sent, acknowledged", f"{verdict.messages:,}, {verdict.answered:,}"),
        ("lost, phantoms", f"{len(broken.get('lost', ()))}, {len(broken.get('unexpected', ()))}"),
        ("copies beyond one", f"{verdict.copies - verdict.delivered:,}"),
        ("attempts in doubt", f"{verdict.in_doubt:,}"),
        ("kept though no answer came", f"{verdict.recovered:,}"),
        ("accept gap: nobody, one client", f"{gaps[0]:g} s, {gaps[1]:g} s"),
        ("claims seen, with two owners", f"{result.claims:,}, {len(result.owners)}"),
        ("accepted twice, one an alias", f"{result.aliases:,}"),
        ("read too early: 404 of a journal's", f"{result.early_reads:,}"),
        ("verify", f"{len(result.findings)} findings"),
        ("drained in", f"{result.drained_s:g} s"),
        ("faults", ", ".join(f"{n} {c}" for n, c in sorted(result.faults.items()))),
        ("processes killed, disks cut", f"{result.kills:,}, {result.cuts}"),
    ]  # fmt: skip
    lines = [f"{name:<34} {value}" for name, value in rows]
    lines.append(f"{'fault':<22}{'at':>7}{'lasts':>8}{'accept':>9}{'deliver':>9}{'whole':>8}")
    begin = min((o.begin for o in result.outages), default=0.0)
    for each in result.outages:
        whole = each.told.get("whole_after_s", "")
        lines.append(
            f"{each.name:<22}{each.begin - begin:>7.1f}{each.end - each.begin:>8.1f}"
            f"{each.accept_s:>9.2f}{each.deliver_s:>9.2f}{whole:>8}"
        )
    for name, found in broken.items():
        lines.append(f"BROKEN {name} ({BROKEN.get(name, name)}): {len(found)}")
        lines += [f"    {each}" for each in found[:_SHOWN]]
    for word, found in (
        ("PROBLEM", result.problems), ("FINDING", result.findings), ("OWNERS", result.owners)
    ):  # fmt: skip
        lines += [f"{word} {each}" for each in found[:_SHOWN]]
    lines.append("nothing broke" if result.good else "IT FAILED")
    return "\n".join(lines) + "\n"


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """A line a run, of what result.json holds."""
    heads = (
        "seed", "minutes", "faults", "acknowledged", "lost", "phantoms", "second copies, in doubt",
        "two owners", "accept gap", "no delivery for", "good",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for each in results:
        verdict, plan = each["verdict"], each["plan"]
        broken = verdict["broken"]
        silent = max((o["deliver_s"] for o in each["outages"]), default=0.0)
        cells = (
            f"{plan['seed']}{', PgBouncer' if plan['pooled'] else ''}",
            f"{each['tormented_s'] / 60:.1f}",
            ", ".join(f"{name} {n}" for name, n in sorted(each["faults"].items())),
            f"{verdict['answered']:,}",
            str(len(broken.get("lost", ()))),
            str(len(broken.get("unexpected", ()))),
            f"{verdict['copies'] - verdict['delivered']}, {verdict['in_doubt']}",
            str(len(each["owners"])),
            f"{each['accept']['seconds']:.2f} s",
            f"{silent:.1f} s",
            "yes" if each["good"] else "**no**",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    kept = [json.loads((Path(word) / "result.json").read_text("utf-8")) for word in sys.argv[1:]]
    sys.stdout.write(table(kept))
