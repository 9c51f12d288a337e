"""The options of `relays add` and `relays set`, and what they come to in the API's words."""

from collections.abc import Callable
from typing import IO, Any, TypeVar

import click

from everpost.cli.exits import Wrong
from everpost.model.relay import TlsPolicy

__all__ = ["FIELDS", "body_of", "relay_options"]

R = TypeVar("R")

_MORE = click.IntRange(min=1)

_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.option("--name", help="Default: the host's name."),
    click.option("--username", help="In place of the one in the URL."),
    click.option(
        "--password-file",
        type=click.File("r", encoding="utf-8"),
        help="File whose first line is the password; - is stdin.",
    ),
    click.option("--password-prompt", is_flag=True, help="Ask for the password."),
    click.option(
        "--tls",
        type=click.Choice([p.value for p in TlsPolicy]),
        help="What TLS it must have. Default: verify with smtps:// or a login across a network, "
        "none with a login on this machine, else opportunistic. require takes any certificate.",
    ),
    click.option("--auth", metavar="MECHANISM", help="Only log in with PLAIN, LOGIN or XOAUTH2."),
    click.option("--helo", metavar="NAME", help="Name given in EHLO to this relay."),
    click.option("--weight", type=_MORE, help="Share of its tier's mail. Default: 1."),
    click.option(
        "--connections",
        type=_MORE,
        help="Most at once, of all processes together. Default: 20; mx: 100.",
    ),
    click.option(
        "--messages-per-connection", type=_MORE, help="Then it is replaced. Default: 1000."
    ),
    click.option("--messages-per-second", type=_MORE, help="Of all processes. Default: no limit."),
    click.option("--messages-per-minute", type=_MORE, help="Of all processes. Default: no limit."),
    click.option(
        "--messages-per-day", type=_MORE, help="Of all processes, a day in UTC. Default: no limit."
    ),
    click.option("--site", metavar="NAME", help="The site of nodes that should prefer it."),
    click.option(
        "--signed-header",
        "signed_headers",
        multiple=True,
        metavar="NAME",
        help="DKIM signs these headers only, for a provider that rewrites others. Repeatable.",
    ),
    click.option(
        "--source",
        multiple=True,
        metavar="IP",
        help="Address of this machine to connect from; one IPv4 and one IPv6 at most.",
    ),
    click.option(
        "--eight-bit/--no-eight-bit", default=None, help="Send 8-bit bodies where offered."
    ),
    click.option(
        "--probe/--no-probe", default=None, help="Try it now and then without mail. Default: yes."
    ),
    click.option("--probe-sender", metavar="ADDRESS", help="MAIL FROM of those trials."),
    click.option("--port", type=click.IntRange(1, 65535), help="mx only: the MX hosts' port."),
    click.option(
        "--destination-connections",
        type=_MORE,
        help="mx only: most at once to one destination's site, of all processes. Default: 20.",
    ),
    click.option(
        "--allow-private/--no-allow-private",
        default=None,
        help="mx only: also connect to addresses that are not public.",
    ),
    click.option(
        "--warmup",
        metavar="N,N,…",
        help="mx only: messages on the first day of a new source address, the second, …",
    ),
    click.option("--warmup-from", metavar="DATE", help="mx only: that first day. Default: today."),
)

FIELDS = (
    "name", "username", "password", "tls", "auth", "helo", "weight", "connections",
    "messages_per_connection", "messages_per_second", "messages_per_minute", "messages_per_day",
    "site", "signed_headers", "source", "eight_bit", "probe", "probe_sender", "port",
    "destination_connections", "allow_private", "warmup", "warmup_from",
)  # fmt: skip
"""What may be given its default again."""


def relay_options(command: Callable[..., R]) -> Callable[..., R]:
    """All of them; the command hands what it gets to `body_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def body_of(
    *, password_file: IO[str] | None, password_prompt: bool, warmup: str | None, **own: Any
) -> dict[str, Any]:
    """What was given, as the API takes it."""
    body = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in own.items()
        if value is not None and value != ()
    }
    if password_file is not None:
        body["password"] = password_file.readline().rstrip("\r\n")
    elif password_prompt:
        body["password"] = click.prompt("Password", hide_input=True, err=True)
    if warmup is not None:
        try:
            body["warmup"] = [int(day) for day in warmup.split(",")]
        except ValueError:
            raise Wrong("--warmup: numbers of messages a day, with commas between") from None
    return body
