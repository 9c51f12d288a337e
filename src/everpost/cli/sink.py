"""`everpost sink`: a mail server that swallows mail, for tests of anything that sends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from everpost.cli.client import json_option
from everpost.cli.exits import Failed, Wrong
from everpost.cli.root import Command
from everpost.cli.show import Printer

__all__ = ["command"]


@click.command(cls=Command, name="sink")
@click.option("--listen", default="127.0.0.1:1025", show_default=True, metavar="HOST:PORT")
@click.option(
    "--maildir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Store every message there. Default: only count.",
)
@click.option("--envelope-headers", is_flag=True, help="Put X-Envelope-From and -To in front.")
@click.option("--rule", "rules", multiple=True, metavar="RULE", help="Misbehave; see above.")
@click.option("--seed", type=int, help="Make the rules' chances repeatable.")
@click.option("--hide", multiple=True, metavar="EXTENSION", help="Do not offer, say, PIPELINING.")
@click.option("--size", type=click.IntRange(min=1), help="Octets of the largest message.")
@click.option("--recipients", type=click.IntRange(min=1), help="Most in one transaction.")
@click.option("--connections", type=click.IntRange(min=1), help="More at once get 421.")
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file; with it STARTTLS is offered.",
)
@click.option(
    "--certificate-key",
    "key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file of its private key, if not in the same file.",
)
@click.option("--implicit-tls", is_flag=True, help="Speak TLS from the first octet.")
@click.option("--user", "users", multiple=True, metavar="NAME:PASSWORD", help="Offer AUTH.")
@click.option("--login-required", is_flag=True, help="Refuse MAIL before AUTH.")
@click.option(
    "--arrivals",
    "arrivals_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="At the end, write Message-ID and time of each message there (JSON lines).",
)
@click.option(
    "--feed",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write each arrival there at once (JSON lines; - is stdout), for `everpost loadtest`.",
)
@click.option("--until-eof", is_flag=True, help="End when standard input does.")
@click.option("--stop-after", type=click.IntRange(min=1), help="End after so many messages.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=10.0, show_default=True,
    help="Seconds between two lines of counts.",
)  # fmt: skip
@json_option
def command(
    *,
    listen: str,
    rules: Sequence[str],
    hide: Sequence[str],
    users: Sequence[str],
    stop_after: int | None,
    every: float,
    until_eof: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Take mail over SMTP and count it, or store it, until interrupted; delays and refusals on
    demand. It relays nothing. --json prints one object a line: where it listens, then counts.

    Rules, as many as you like; the first of a phase that applies is taken:

    \b
      --rule 'dot delay=2.5'                          answer the final dot late
      --rule 'rcpt refuse="550 5.1.1 No such user"'   refuse every recipient
      --rule 'rcpt refuse="451 4.7.1 Later" times=3'  refuse three, then take
      --rule 'dot close every=10'                     take it, hang up unanswered
      --rule 'mail silent'                            never answer

    The phases: connect, banner, ehlo, starttls, auth, mail, rcpt, data, body, dot. Rules also take
    probability=P, skip=N and domain=PATTERN.
    """
    import uvloop

    from everpost.loadtest import Behaviour, Rule, SinkOptions, run_sink
    from everpost.net.listener import Endpoint, ListenError

    out = Printer(as_json=as_json)
    try:
        where = Endpoint.parse(listen)
        if where.path is not None:
            raise ValueError("--listen: expected HOST:PORT")
        chosen = SinkOptions(
            host=where.host,
            port=where.port,
            behaviour=Behaviour(rules=tuple(Rule.parse(rule) for rule in rules)),
            hide=frozenset(name.upper() for name in hide),
            users=dict(_user(given) for given in users),
            **{name: value for name, value in options.items() if value is not None},
        )
    except ValueError as error:
        raise Wrong(str(error)) from error
    try:
        final = uvloop.run(
            run_sink(
                chosen,
                on_ready=lambda host, port: _ready(out, host, port),
                on_stats=lambda stats: _counts(out, stats),
                every=every,
                stop_after=stop_after,
                until_eof=0 if until_eof else None,
            )
        )
    except (ListenError, OSError) as error:
        raise Failed(f"the sink: {error}") from error
    _counts(out, final)


def _user(given: str) -> tuple[str, str]:
    name, colon, password = given.partition(":")
    if not colon or not name:
        raise ValueError("--user: expected NAME:PASSWORD")
    return name, password


def _ready(out: Printer, host: str, port: int) -> None:
    if out.as_json:
        out.json_line({"listening": {"host": host, "port": port}})
    out.line(f"The sink listens on {host}:{port}.")


def _counts(out: Printer, stats: dict[str, Any]) -> None:
    if out.as_json:
        out.json_line(stats)
        return
    numbers = (f"{name} {value}" for name, value in stats.items() if isinstance(value, int | float))
    out.line(", ".join(numbers))
