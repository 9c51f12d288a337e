"""Writes docs/reference from the code: `python -m docs.generate`, or `--check` to compare only.

Each page has one source in the code, so it can't say what the code doesn't. `tests/docs` compares.
"""

import argparse
import ast
import importlib
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

import everpost
from docs import hostile
from everpost import telemetry
from everpost.api import openapi_document
from everpost.cli.exits import EPILOG
from everpost.cli.root import root
from everpost.config import reference
from everpost.delivery import classify, shaping, sites
from everpost.model.outcome import Mark, Phase
from everpost.model.states import LIVE, TERMINAL, TRANSITIONS, State
from everpost.monitoring.metrics import RESTARTS_HELP

__all__ = ["PAGES", "REFERENCE", "changed", "main", "page"]

REFERENCE = Path(__file__).parent / "reference"
SOURCE = Path(everpost.__file__).parent
TESTS = Path(__file__).parent.parent / "tests"

NOTE = "<!-- Written by `make docs` from {source}; edit that, not this. -->"


def page(name: str) -> str:
    """The whole text of one page."""
    title, source, body = PAGES[name]
    text = f"{NOTE.format(source=source)}\n# {title}\n\n{body().strip()}\n"
    return re.sub(r"[ \t]+\n", "\n", text)


# --- config ---------------------------------------------------------------------------------------


def _config() -> str:
    return (
        "A node reads one TOML file (`--config`, or `everpost.toml` in the data directory), then "
        "environment variables, then options; the last one wins. An unknown key or a wrong value "
        "stops the start and names what was expected. `everpost config sample` prints a file with "
        "every setting explained; `everpost config show` says what is in force and why.\n\n"
        + reference()
    )


# --- command line ---------------------------------------------------------------------------------


def _cli() -> str:
    parts = [EPILOG]
    context = click.Context(root, info_name="everpost")
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        parts += _command(command, f"everpost {name}", context, level=2)
    return "\n\n".join(parts)


def _command(
    command: click.Command, path: str, parent: click.Context, *, level: int
) -> Iterator[str]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent)
    if isinstance(command, click.Group):
        yield f"{'#' * level} {path}"
        yield command.help or ""
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _command(child, f"{path} {name}", context, level=level + 1)
        return
    yield f"{'#' * level} {path}"
    yield f"`{path} {' '.join(command.collect_usage_pieces(context))}`"
    yield _unwrapped(command.help or "")
    options = [param for param in command.params if isinstance(param, click.Option)]
    rows = list(filter(None, (option.get_help_record(context) for option in options)))
    if rows:
        lines = ["| option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows]
        yield "\n".join(lines)
    if command.epilog and command.epilog != EPILOG:
        yield _unwrapped(command.epilog)


def _unwrapped(text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(map(_paragraph, paragraphs))


def _paragraph(text: str) -> str:
    """Lines that click is told to leave alone (they begin with `\\b`) as a block of code."""
    if text.lstrip().startswith("\b"):
        return "```\n" + textwrap.dedent(text.lstrip().removeprefix("\b").strip("\n")) + "\n```"
    return " ".join(text.split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# --- states ---------------------------------------------------------------------------------------


def _states() -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    for arrow in TRANSITIONS:
        lines.append(f"    {arrow.source or '[*]'} --> {arrow.target}: {arrow.verb}")
    lines += [f"    {state} --> [*]" for state in State if state in TERMINAL]
    lines += ["```", "", "| from | verb | to | written by | when |", "|---|---|---|---|---|"]
    lines += [
        f"| {arrow.source or '(new)'} | {arrow.verb} | {arrow.target} | {arrow.room} "
        f"| {arrow.when} |"
        for arrow in TRANSITIONS
    ]
    live = ", ".join(f"`{state}`" for state in State if state in LIVE)
    ended = ", ".join(f"`{state}`" for state in State if state in TERMINAL)
    return (
        "The stored state of one recipient of one message. What users see beside these "
        "(`scheduled`, `deferred`, `sending`, a message's status) is derived from them.\n\n"
        f"Live: {live}. Ended, for good: {ended}.\n\n" + "\n".join(lines)
    )


# --- classification -------------------------------------------------------------------------------


def _classification() -> str:
    lines = [
        "What a negative answer of a mail server means. The rows are tried in this order; the "
        "first that fits decides, and the record of an attempt names it (`rule`). Towards a "
        "smart host, `relay-fault` and `throttle` also mean that another relay may be tried at "
        "once. A hard bounce says that the address is no good for any message; a soft one, that "
        "this message was refused. `of the mailbox`, `greylist` and `block` are what the answer is "
        "about, where that decides more: see [sites](sites.md). "
        "Words are looked for anywhere in the answer, without regard to "
        "case; `$x` is a list below. To add a row: "
        "[docs/adding/a-classification-row.md](../adding/a-classification-row.md).",
        "",
        "| row | via | at | answer | means | for people | source | example |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(row) for row in classify.RULES]
    lines += ["", "## Phrases", "", "| list | phrases |", "|---|---|"]
    lines += [
        f"| `${name}` | {', '.join(map(_code, phrases))} |"
        for name, phrases in classify.PHRASES.items()
    ]
    lines += ["", "## Phases", "", "| set | phases |", "|---|---|"]
    lines += [
        f"| {name} | {', '.join(phase for phase in Phase if phase in phases)} |"
        for name, phases in classify.TABLE.phases.items()
    ]
    return "\n".join(lines)


_MARKS = {Mark.MAILBOX: "of the mailbox", Mark.GREYLIST: "greylist", Mark.BLOCK: "block"}


def _row(row: classify.Rule) -> str:
    answer = [part for part in (row.code, row.enhanced) if part is not None]
    answer += row.text
    means = f"{row.kind} bounce" if row.kind else row.means
    speaker = f", says the {row.speaker}" if row.speaker else ""
    mark = f" ({_MARKS[row.mark]})" if row.mark else ""
    example = row.examples[0]
    cells = (
        f"`{row.id}`",
        row.via,
        row.phases or "any",
        " ".join(map(_code, answer)) or "any",
        f"{means}{mark}{speaker}",
        row.reason,
        f"{row.source} ({row.date})",
        f"{example.at}: {_code(example.says)}",
    )
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`"


# --- sites ----------------------------------------------------------------------------------------


def _sites() -> str:
    minute = 60_000
    rules = [
        ("sessions at once, to begin with", f"{shaping.START}"),
        ("one more", "after as many successes as there may be sessions"),
        ("half as many", "after 421, or a session that could not be had; never below one"),
        (
            "pause, when it asks us to send less",
            f"{shaping.PAUSE_MS // minute} min, doubled each time up to "
            f"{shaping.LONGEST_PAUSE_MS // minute} min",
        ),
        (
            "stop, when it refuses our source address",
            f"{shaping.STOP_MS // minute // 60} h, doubled each time up to "
            f"{shaping.LONGEST_STOP_MS // minute // 60} h",
        ),
        (
            "after a pause or stop",
            f"one session; who only learnt of it, {shaping.OTHERS_LATER_MS // 1000} s later",
        ),
        (
            "the whole source address is taken out",
            f"when {shaping.BLOCKING_SITES} sites refuse it within "
            f"{shaping.BLOCKING_MS // minute // 60} h, and at least one in "
            f"{shaping.BLOCKING_SHARE} of those it talked to",
        ),
        (
            "a greylist that was passed is remembered",
            f"{shaping.PASSED_MS // minute // 60 // 24} days",
        ),
    ]
    lines = [
        "A site is all domains whose mail the same hosts take. It is known by the names of a "
        "domain's best MX hosts: those with the same set are one site. Where a provider gives "
        "each domain hosts of its own, the table below joins them, by what the names of the hosts "
        "are or end in. Its numbers are those that the provider publishes; without one our own "
        "settings hold (`destination_connections`, `messages_per_connection`). To add a row: "
        "[docs/adding/a-provider.md](../adding/a-provider.md).",
        "",
        "| provider | MX hosts | sessions at once | messages a session | source |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.name} | {', '.join(map(_code, one.mx))} | {one.connections or ''} "
        f"| {one.messages or ''} | {_cell(one.source)} ({one.date}) |"
        for one in sites.PROVIDERS
    ]
    lines += ["", "## Rules", "", "Per relay (source address) and site:", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {how} |" for what, how in rules]
    return "\n".join(lines)


# --- metrics --------------------------------------------------------------------------------------


def _metrics() -> str:
    for module in _modules():
        importlib.import_module(module)
    lines = [
        "Served in Prometheus' format at `/metrics` of the admin listener (`http.admin_listen`).",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    scraped = telemetry.Metric("everpost_restarts_total", "counter", RESTARTS_HELP, ("name",))
    ours = {name: m for name, m in telemetry.METRICS.items() if name.startswith("everpost_")}
    ours[scraped.name] = scraped
    for name, metric in sorted(ours.items()):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{name}` | {metric.kind} | {labels} | {_cell(metric.help)} |")
    return "\n".join(lines)


def _modules() -> Iterator[str]:
    for found in pkgutil.walk_packages([str(SOURCE)], "everpost."):
        if not found.name.endswith("__main__") and ".migrations." not in found.name:
            yield found.name


# --- standards ------------------------------------------------------------------------------------

_ANCHOR = re.compile(r"RFC (\d{3,5})(?: §([0-9A-Z][0-9A-Za-z.]*[0-9A-Za-z]|[0-9A-Z]))?")


def _standards() -> str:
    found: dict[int, dict[str, set[str]]] = {}
    for path in sorted([*SOURCE.rglob("*.py"), *SOURCE.rglob("delivery/*.toml")]):
        room = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for number, section in _ANCHOR.findall(path.read_text(encoding="utf-8")):
            found.setdefault(int(number), {}).setdefault(section, set()).add(room)
    lines = [
        "Collected from the places in the code that say which rule they obey.",
        "",
        "| standard | section | where |",
        "|---|---|---|",
    ]
    for number in sorted(found):
        for section in sorted(found[number], key=_section_order):
            rooms = ", ".join(f"`{room}`" for room in sorted(found[number][section]))
            link = f"[RFC {number}](https://www.rfc-editor.org/rfc/rfc{number})"
            lines.append(f"| {link} | {f'§{section}' if section else ''} | {rooms} |")
    return "\n".join(lines)


def _section_order(section: str) -> list[tuple[int, str]]:
    parts = section.split(".") if section else []
    return [(int(part), "") if part.isdigit() else (1 << 30, part) for part in parts]


# --- API ------------------------------------------------------------------------------------------


def _api() -> str:
    described: Mapping[str, Any] = openapi_document("http://127.0.0.1:8080")
    answers: dict[str, str] = {}
    operations: list[str] = []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if isinstance(operation, Mapping) and "responses" in operation:
                operations += _operation(described, f"{method.upper()} {path}", operation)
                for status, answer in operation["responses"].items():
                    said = str(_resolved(described, answer).get("description", ""))
                    answers.setdefault(status, said)
    table = ["| status | meaning |", "|---|---|"]
    table += [f"| {status} | {_cell(answers[status])} |" for status in sorted(answers)]
    parts = [
        str(described["info"].get("description", "")),
        "The machine-readable form, with every field of every answer, is served at "
        "`/openapi.json`; a running server shows it at `/docs`.",
        "\n".join(table),
        *operations,
    ]
    return "\n\n".join(part for part in parts if part)


def _operation(
    document: Mapping[str, Any], heading: str, operation: Mapping[str, Any]
) -> Iterator[str]:
    yield f"## {heading}"
    summary = str(operation.get("summary", ""))
    yield summary
    if operation.get("description") != summary:
        yield str(operation.get("description", ""))
    rows = [
        (f"`{parameter['name']}`", str(parameter["in"]), str(parameter.get("description", "")))
        for parameter in (_resolved(document, p) for p in operation.get("parameters", ()))
    ]
    body = _resolved(document, operation.get("requestBody", {}))
    schema = body.get("content", {}).get("application/json", {}).get("schema")
    rows += [
        (f"`{name}`", "body", str(_resolved(document, field).get("description", "")))
        for name, field in _resolved(document, schema or {}).get("properties", {}).items()
    ]
    if rows:
        table = ["| field | in | meaning |", "|---|---|---|"]
        table += [f"| {name} | {place} | {_cell(text)} |" for name, place, text in rows]
        yield "\n".join(table)
    yield "Answers: " + ", ".join(sorted(operation["responses"])) + "."


def _resolved(document: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """`node`, or what its `$ref` into this document names."""
    while "$ref" in node:
        found: Any = document
        for part in str(node["$ref"]).removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        node = found
    return node


# --- misfortunes ----------------------------------------------------------------------------------

INVARIANTS = {
    "I1": "No loss: what was acknowledged reaches exactly one end and is never missing.",
    "I2": "A recipient has one end, and nothing follows it.",
    "I3": "Nothing arrives that nobody sent.",
    "I4": "There are never more extra copies than attempts in doubt, all with one Message-ID.",
    "I5": "States only move forward; a message's events have no gap and no repeat.",
    "I6": "Record and far end agree: `delivered` is there; what is there is delivered or in doubt.",
    "I7": "One idempotency key is one message, across crashes, too.",
    "I8": "Nothing is acknowledged before it is durable.",
    "I9": "What was refused is not delivered.",
    "I10": "What arrives is what was accepted, to the byte, and its DKIM signatures verify.",
    "I11": "The envelope is the accepted one; nobody learns of a Bcc.",
    "I12": "Nothing before its time or after its life; the gaps between attempts are the policy's.",
    "I13": "A claim has one owner; a stale one writes nothing.",
    "I14": "After a cancellation, suppression or unsubscription no attempt starts.",
    "I15": "Webhooks are delivered at least once, or listed.",
    "I16": "Memory, files and connections are bounded; at the limit there is an answer.",
    "I17": "Other mail does not feel it.",
    "I18": "Connections and tries are capped; a dead relay is left alone for a while.",
    "I19": "When the fault ends, the backlog drains without a stampede.",
    "I20": "The sums are right: accepted = ended + queued + claimed + held.",
    "I21": "No secret in logs, metrics, errors or answers.",
    "I22": "A clock that is set or stands still loses nothing and sends nothing early.",
}
"""What the tests hold, by the numbers that their docstrings name."""

_ROW = re.compile(r"\bF\d{1,2}\b")
_INVARIANTS = re.compile(r"Invariants: ([^.]+)\.")


def _misfortunes() -> str:
    lines = [
        "What can go wrong, and the tests that make it happen to a whole running server. The "
        "numbers are the project's own: F1 to F19 befall mail on its way in, F20 to F49 the "
        "store, F50 and above mail on its way out.",
        "",
        "| row | what happens, and what is shown | invariants | tests |",
        "|---|---|---|---|",
    ]
    found: list[tuple[list[int], str, str, Path]] = []
    for folder in ("scenarios", "faults"):
        for path in sorted((TESTS / folder).glob("test_*.py")):
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            rows = sorted({int(row[1:]) for row in _ROW.findall(said)})
            if rows:
                invariants = _INVARIANTS.search(said)
                text = re.sub(r"^(F\d+[, ]*)+: ", "", _INVARIANTS.sub("", said).strip())
                held = invariants[1] if invariants is not None else ""
                found.append((rows, text, held, path))
    for rows, text, held, path in sorted(found):
        numbers = ", ".join(f"F{row}" for row in rows)
        place = path.relative_to(TESTS.parent).as_posix()
        link = f"[{path.stem}](../../{place})"
        lines.append(
            f"| {numbers} | {_cell(text[:1].upper() + text[1:])} | {_cell(held)} | {link} |"
        )
    lines += ["", "The invariants:", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in INVARIANTS.items()]
    return "\n".join(lines)


# --- all ------------------------------------------------------------------------------------------

PAGES: dict[str, tuple[str, str, Callable[[], str]]] = {
    "config": ("Settings", "`everpost.config`", _config),
    "cli": ("Command line", "`everpost.cli`", _cli),
    "states": ("States of a recipient", "`everpost.model.states`", _states),
    "classification": (
        "Classification of answers",
        "`everpost/delivery/classification.toml`",
        _classification,
    ),
    "sites": ("Destination sites", "`everpost/delivery/shaping.toml` and `shaping.py`", _sites),
    "api": ("HTTP API", "`everpost.api.openapi`", _api),
    "metrics": ("Metrics", "the rooms that emit them", _metrics),
    "misfortunes": ("Misfortunes", "the tests' docstrings", _misfortunes),
    "standards": ("Standards", "the anchors in the code", _standards),
    "hostile-input": ("Hostile input", "`tests/support/hostile`", hostile.hostile_input),
    "addresses": ("Addresses", "`tests/support/address_opinions.py`", hostile.addresses),
}
"""Page: its title, where it comes from, and the function that writes it."""


def changed() -> list[str]:
    """Pages whose file is not what the code says now."""
    stale = []
    for name in PAGES:
        file = REFERENCE / f"{name}.md"
        if not file.is_file() or file.read_text(encoding="utf-8") != page(name):
            stale.append(name)
    return stale


def main() -> int:
    """0, or 1 when `--check` finds a page that is not up to date."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if parser.parse_args().check:
        stale = changed()
        for name in stale:
            sys.stderr.write(f"docs/reference/{name}.md is not up to date: run `make docs`\n")
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for name in PAGES:
        (REFERENCE / f"{name}.md").write_text(page(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
