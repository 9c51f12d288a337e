"""What is said of a run: for people, for programs, and as a table for the documents."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tests.chaos.checker import BROKEN
from tests.chaos.run import Result

__all__ = ["as_json", "summary", "table"]

_SHOWN = 12


def as_json(result: Result) -> str:
    """All of it; `table` reads it."""
    return json.dumps(_facts(result), indent=2) + "\n"


def summary(result: Result) -> str:
    """A page of text."""
    lines = [
        f"seed {result.plan.seed}, {result.tormented_s:g} s of faults"
        + (f", mutant {result.plan.mutant}" if result.plan.mutant else "")
    ]
    lines += [f"{name:<42} {value}" for name, value in _rows(_facts(result))]
    for name, found in result.verdict.broken.items():
        lines.append(f"BROKEN {name} ({BROKEN[name]}): {len(found)}")
        lines += [f"    {each}" for each in found[:_SHOWN]]
    lines += [f"PROBLEM {each}" for each in result.problems]
    lines += [f"FINDING {each}" for each in result.findings[:_SHOWN]]
    if twice := list(result.verdict.duplicates.items()):
        lines.append("more than one copy (copies, attempts in doubt); result.json lists all:")
        lines += [f"    {e}: {copies}, {doubts}" for e, (copies, doubts) in twice[:_SHOWN]]
    lines.append("nothing broke" if result.good else "IT FAILED")
    return "\n".join(lines) + "\n"


def table(result: Mapping[str, Any]) -> str:
    """A result.json's figures as Markdown."""
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in _rows(result)]
    return "\n".join(lines) + "\n"


def _facts(result: Result) -> dict[str, Any]:
    return {"good": result.good, **dataclasses.asdict(result)}


def _rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    verdict, plan, peaks = result["verdict"], result["plan"], result["peaks"]
    broken = verdict["broken"]
    return [
        ("seed, length", f"{plan['seed']}, {result['tormented_s']:g} s"),
        ("messages sent, acknowledged", _both(verdict["messages"], verdict["answered"])),
        ("recipients sent, acknowledged", _both(verdict["attempted"], verdict["acknowledged"])),
        ("processes killed, power cuts", _both(result["kills"], result["cuts"])),
        ("faults", _counts(result["faults"])),
        ("lost", str(len(broken.get("lost", ())))),
        ("phantoms", str(len(broken.get("unexpected", ())))),
        ("attempts in doubt", f"{verdict['in_doubt']:,}"),
        (
            "second copies, of them not listed as in doubt",
            _both(
                verdict["copies"] - verdict["delivered"], len(broken.get("copies_unlisted", ()))
            ),
        ),
        ("delivered though no answer came", f"{verdict['recovered']:,}"),
        ("ends", _counts(verdict["ends"])),
        ("other invariants broken", ", ".join(sorted(broken)) or "none"),
        ("verify, live and stopped", f"{len(result['findings'])} findings"),
        ("drained in", f"{result['drained_s']:g} s"),
        ("released, held because faults killed their processes", f"{result['released']:,}"),
        ("most memory, files, of all processes", f"{peaks['rss_mib']} MiB, {peaks['files']}"),
    ]  # fmt: skip


def _both(one: int, two: int) -> str:
    return f"{one:,}, {two:,}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items()))
