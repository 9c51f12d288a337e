"""A relay of a demonstration, in a process of its own, so that it can be killed.

    python -m demo.relay PORT        port 0: the kernel chooses

Prints the port, then each arrival, as JSON lines. Each line that it reads is what to be from now
on: `well`, `slow SECONDS` (every final dot is answered so late), `refusing` (it greets, and refuses
every MAIL). Ends with its input.
"""

import asyncio
import sys

import msgspec
import uvloop

from everpost.loadtest.behaviour import Behaviour, Rule
from everpost.loadtest.reception import Arrival
from everpost.loadtest.sink import Sink, SinkOptions

__all__ = ["Said", "behaviour"]


class Said(msgspec.Struct, omit_defaults=True):
    """A line of a relay: where it listens, or a message that it took, by mark and monotonic time,
    which all processes of a machine share."""

    port: int = 0
    mark: str = ""
    at: float = 0.0


def behaviour(word: str) -> Behaviour:
    """What a line asks for. Raises ValueError."""
    name, _, seconds = word.strip().partition(" ")
    match name:
        case "well":
            return Behaviour()
        case "slow":
            return Behaviour(rules=(Rule.parse(f"dot delay={float(seconds):g}"),))
        case "refusing":
            return Behaviour(rules=(Rule.parse('mail refuse="451 4.3.0 Out of order"'),))
        case _:
            raise ValueError(f"a relay cannot be {word!r}")


def _say(said: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


def _took(arrival: Arrival) -> None:
    _say(Said(mark=arrival.mark, at=arrival.at))


async def _run(port: int) -> None:
    words = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(words), sys.stdin
    )
    async with Sink(SinkOptions(port=port, hostname="relay.test"), on_arrival=_took) as sink:
        _say(Said(port=sink.port))
        while word := await words.readline():
            sink.behave(behaviour(word.decode()))


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1])))
