"""`everpost loadtest`: drives a real server at a constant arrival rate and says what it bears."""

import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from everpost.cli.client import json_option
from everpost.cli.exits import FAILED, Failed, NotReached, Wrong
from everpost.cli.root import Command
from everpost.cli.show import Printer

if TYPE_CHECKING:
    from everpost.loadtest.far_sink import Source
    from everpost.loadtest.generator import Target
    from everpost.loadtest.mix import Kind
    from everpost.loadtest.plan import Step
    from everpost.loadtest.run import Setup
    from everpost.net.http import Origin

__all__ = ["command"]

_ADMIN_PORT = 8081
_FIRST_RATE = 50.0
_FIND_P99_MS = 250.0
_ERRORS_PERCENT = 1.0


@click.command(cls=Command, name="loadtest")
@click.argument("url", required=False)
@click.option(
    "--key",
    envvar="EVERPOST_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="API key. Better set in the environment than on the command line.",
)
@click.option("--rate", type=float, help=f"Messages a second. Default: {_FIRST_RATE:g}.")
@click.option("--steps", metavar="R,R,…", help="Several rates, one after the other.")
@click.option("--ramp", metavar="R:R", help="From one rate to another, in a straight line.")
@click.option("--find-rate", is_flag=True, help="Search the highest rate that keeps the objective.")
@click.option("--highest", type=float, help="With --find-rate: try nothing above.")
@click.option("--duration", type=float, help="Seconds of each step. Default: 10; of each trial: 5.")
@click.option(
    "--warm-up",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds at the first rate that are not measured.",
)
@click.option(
    "--messages",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Send at most so many in all; a plan for more is refused.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["uniform", "poisson"]),
    default="uniform",
    show_default=True,
    help="Evenly spread, or by chance as from many users.",
)
@click.option("--seed", type=int, help="Make chance (arrivals, mix) repeatable.")
@click.option(
    "--mix",
    "mix_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What to send (TOML). Default: 2 KB of text, 100 destinations.",
)
@click.option("--sample-mix", is_flag=True, help="Print such a file, explained, and end.")
@click.option(
    "--batch",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Messages of one request (POST /emails/batch).",
)
@click.option("--idempotency", is_flag=True, help="Give each request an Idempotency-Key.")
@click.option(
    "--connections",
    type=click.IntRange(1, 10_000),
    default=256,
    show_default=True,
    help="At most; opened when needed.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds from its intended start after which a request has failed.",
)
@click.option("--sink", metavar="HOST:PORT", help="Run a sink there and measure until arrival.")
@click.option(
    "--sink-rule", "rules", multiple=True, metavar="RULE", help="As `everpost sink --rule`."
)
@click.option(
    "--feed",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Measure until arrival at a sink that writes this (`everpost sink --feed FILE`).",
)
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Wait so long at most for the last mail to arrive.",
)
@click.option("--metrics", metavar="URL", help="The server's. Default: on port 8081 of loopback.")
@click.option("--no-metrics", is_flag=True, help="Take no stage timings.")
@click.option(
    "--p99-ms",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Objective: accepted within. With --find-rate: {_FIND_P99_MS:g}.",
)
@click.option(
    "--delivered-p99-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="Objective: arrived within.",
)
@click.option(
    "--max-errors",
    type=click.FloatRange(0, 100),
    default=_ERRORS_PERCENT,
    show_default=True,
    metavar="PERCENT",
    help="Objective: requests that may fail.",
)
@click.option(
    "--keep-up",
    is_flag=True,
    help="Objective: mail arrives as fast as it is accepted. With --find-rate: always.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file of an authority to trust beside the system's.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a report with plots there: one HTML file.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result there as JSON, histograms included.",
)
@click.option(
    "--i-own-this-server", "owned", is_flag=True, help="Allow a target that is not this machine."
)
@click.option(
    "--i-own-these-addresses",
    "own_addresses",
    is_flag=True,
    help="Allow recipients outside .test, .example and the like.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, url: str | None, as_json: bool, **given: Any) -> None:
    """Send mail to the server at URL at a constant rate, whatever it answers, and measure.

    Open loop: a request starts when it is due, also while earlier ones wait, and its time counts
    from then. With --sink, or --feed, until the mail arrives at the far end. The server needs a
    relay that leads to the sink and a domain that may send (see docs/operate/loadtest.md).

    \b
      everpost loadtest http://127.0.0.1:8080 --rate 200 --sink 127.0.0.1:1025
      everpost loadtest http://127.0.0.1:8080 --find-rate --p99-ms 100 --report load.html

    Bounds: 20,000 messages a second, one hour, 2,000,000 messages. Ctrl-C ends it with what was
    measured. The exit code is 1 when the objective was missed.
    """
    from everpost.loadtest.mix import SAMPLE

    if given.pop("sample_mix"):
        click.echo(SAMPLE, nl=False)
        return
    try:
        if url is None:
            raise Wrong("which server? say its URL, such as http://127.0.0.1:8080")
        _load(ctx, url, Printer(as_json=as_json), given)
    except Failed as error:
        error.as_json = as_json
        raise


def _load(ctx: click.Context, url: str, out: Printer, given: dict[str, Any]) -> None:
    import random

    import uvloop

    from everpost.cli.progress import ProgressLine
    from everpost.clock import SystemClock
    from everpost.loadtest.far_sink import NoSink
    from everpost.loadtest.result import kept, result
    from everpost.loadtest.run import NotReachable, run
    from everpost.loadtest.summary import summary

    report, save = given["report"], given["save"]
    seed = given["seed"] if given["seed"] is not None else secrets.randbits(32)
    setup = _setup(url, given)
    line = ProgressLine(setup, on=not out.as_json and sys.stderr.isatty())
    chance = random.Random(seed)  # noqa: S311  no secret hangs on it
    try:
        outcome = uvloop.run(run(setup, clock=SystemClock(), chance=chance, progress=line.show))
    except NotReachable as error:
        raise NotReached(f"{url} could not be reached: {error}") from error
    except NoSink as error:
        raise Failed(f"the sink: {error}") from error
    finally:
        line.end()
    found = result(setup, outcome, target=url, seed=seed)
    if out.as_json:
        click.echo(json.dumps(found, ensure_ascii=True))
    for text in summary(found):
        out.line(text)
    if save is not None:
        _write(save, json.dumps(found, ensure_ascii=True) + "\n")
    if report is not None:
        from everpost.loadtest.report import html

        _write(report, html(found))
        out.line(f"The report is {report}")
    if found["interrupted"]:
        ctx.exit(130)
    if not kept(found):
        ctx.exit(FAILED)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error


# --- from options to a setup ----------------------------------------------------------------------


def _setup(url: str, given: dict[str, Any]) -> "Setup":
    """What the options ask for. Raises Wrong, NotReached."""
    from everpost.loadtest.objective import Objective, Search
    from everpost.loadtest.plan import MOST_MESSAGES, MOST_RATE, Arrivals, BadPlan, check
    from everpost.loadtest.run import Setup
    from everpost.net.http import Origin

    find = given["find_rate"]
    try:
        origin = Origin.from_url(url)
        kinds = _kinds(given)
        if given["messages"] > MOST_MESSAGES:
            raise Wrong(f"--messages: at most {MOST_MESSAGES}")
        steps = _steps(given)
        check(steps, messages=given["messages"])
        search = None
        if find:
            highest = min(given["highest"] or MOST_RATE, MOST_RATE)
            search = Search(given["rate"] or _FIRST_RATE, highest=highest)
            steps = [step for step in steps if not step.measured]
        target = _target(origin, given)
        metrics = _metrics(given, target)
    except (BadPlan, ValueError) as error:
        raise Wrong(str(error)) from error
    p99 = given["p99_ms"] or (_FIND_P99_MS if find else None)
    late = given["delivered_p99_ms"]
    sink = _sink(given)
    if sink is None and (late is not None or given["keep_up"]):
        raise Wrong("--delivered-p99-ms and --keep-up need --sink or --feed")
    return Setup(
        run=secrets.token_hex(4),
        target=target,
        kinds=kinds,
        steps=steps,
        arrivals=Arrivals(given["arrivals"]),
        objective=Objective(
            p99=None if p99 is None else p99 / 1000,
            delivered_p99=None if late is None else late / 1000,
            errors=given["max_errors"] / 100,
            keep_up=sink is not None and (find or given["keep_up"]),
        ),
        messages=given["messages"],
        drain_s=given["drain"],
        search=search,
        trial_s=given["duration"] or 5.0,
        sink=sink,
        metrics=metrics,
    )


def _steps(given: dict[str, Any]) -> "list[Step]":
    """Warm-up and steps. Raises BadPlan."""
    from everpost.loadtest.plan import BadPlan, Step, parse_ramp, parse_rates

    chosen = [name for name in ("steps", "ramp", "find_rate") if given[name]]
    if len(chosen) > 1 or (given["rate"] and chosen not in ([], ["find_rate"])):
        raise BadPlan("one of --rate, --steps and --ramp, or --find-rate with --rate to begin with")
    duration = given["duration"] if given["duration"] is not None else 10.0
    if given["steps"]:
        steps = parse_rates(given["steps"], duration)
    elif given["ramp"]:
        steps = parse_ramp(given["ramp"], duration)
    else:
        rate = given["rate"] if given["rate"] is not None else _FIRST_RATE
        steps = [Step.steady(rate, duration)]
    if given["warm_up"]:
        rate = max(steps[0].first, min(steps[0].last, 1.0))
        steps.insert(0, Step.steady(rate, given["warm_up"], measured=False))
    return steps


def _kinds(given: dict[str, Any]) -> "Sequence[Kind]":
    """Raises Wrong."""
    from everpost.loadtest.mix import BadMix, Kind, Mix, strangers

    if given["mix_file"] is None:
        kinds = [Kind()]
    else:
        try:
            kinds = Mix.read(given["mix_file"].read_text(encoding="utf-8"))
        except (BadMix, OSError, UnicodeDecodeError) as error:
            raise Wrong(f"{given['mix_file']}: {error}") from error
    others = strangers(kinds)
    if others and not given["own_addresses"]:
        raise Wrong(
            f"the mix sends to {', '.join(others[:3])}, which may be somebody's: use names below "
            ".test, or say --i-own-these-addresses"
        )
    return kinds


def _metrics(given: dict[str, Any], target: "Target") -> "Origin | None":
    """Where the server's metrics are. Raises ValueError."""
    from everpost.loadtest.reach import is_loopback
    from everpost.net.http import Origin

    if given["no_metrics"]:
        return None
    if given["metrics"] is not None:
        return Origin.from_url(given["metrics"].removesuffix("/metrics"))
    here = all(is_loopback(address) for address in target.addresses)
    return Origin(target.host, _ADMIN_PORT) if here else None


def _sink(given: dict[str, Any]) -> "Source | None":
    """Where arrivals are heard of. Raises Wrong."""
    from everpost.loadtest.behaviour import Rule
    from everpost.loadtest.far_sink import FeedFile, SinkProcess
    from everpost.net.listener import Endpoint

    if given["sink"] and given["feed"]:
        raise Wrong("--sink or --feed, not both")
    if given["rules"] and not given["sink"]:
        raise Wrong("--sink-rule is for --sink")
    if given["feed"]:
        return lambda reader: FeedFile(given["feed"], reader)
    if not given["sink"]:
        return None
    try:
        if Endpoint.parse(given["sink"]).path is not None:
            raise ValueError("expected HOST:PORT")
        for rule in given["rules"]:
            Rule.parse(rule)
    except ValueError as error:
        raise Wrong(f"--sink: {error}") from error
    return lambda reader: SinkProcess(given["sink"], given["rules"], reader)


def _target(origin: "Origin", given: dict[str, Any]) -> "Target":
    """The target, its addresses looked at. Raises Wrong, NotReached."""
    import asyncio

    from everpost.loadtest.generator import Target
    from everpost.loadtest.reach import Forbidden, check_target
    from everpost.net.keepalive import addresses_of
    from everpost.net.streams import tls_context

    try:
        addresses = asyncio.run(addresses_of(origin.host, origin.port))
        check_target(origin.host, addresses, owned=given["owned"])
    except OSError as error:
        raise NotReached(f"{origin.host}: {error.strerror or error}") from error
    except Forbidden as error:
        raise Wrong(str(error)) from error
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    ca_file = given["ca_file"]
    return Target(
        addresses=addresses,
        port=origin.port,
        host=origin.host,
        authority=f"{host}:{origin.port}",
        prefix=origin.prefix,
        key=given["key"],
        tls=tls_context(verify=True, ca_file=str(ca_file) if ca_file else None)
        if origin.tls
        else None,
        batch=given["batch"],
        idempotency=given["idempotency"],
        connections=given["connections"],
        timeout=given["timeout"],
    )
