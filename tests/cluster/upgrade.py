"""F41: three nodes are upgraded one after the other, and back, while clients post through HAProxy.

    python -m tests.cluster.upgrade FROM [--rate 200] [--json]

FROM is a commit of this repository: its `src` is checked out beside, and run by this interpreter.
Clients post without keys and try nothing twice. Exits with 1 when a request failed, a message was
lost or went out twice, or the books are not right.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.deployed import Balancer
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.nodes import cluster
from tests.support.posting import Poster, posting, through_port
from tests.support.waiting import wait_until

_ROOT = Path(__file__).parents[2]
_SETTINGS = {"EVERPOST_HTTP_LINGER_S": "3", "EVERPOST_DISPATCH_POLL_S": "0.2"}
_PER_CLIENT = 30.0
"""Requests a second that one client makes, about."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What came of it. `longest_s`: the most seconds that an answer took."""

    began_with: str
    seconds: float
    accepted: int
    failed: tuple[str, ...]
    longest_s: float
    delivered: int
    twice: int
    lost: int

    @property
    def rate(self) -> float:
        return self.accepted / self.seconds


@contextlib.contextmanager
def _sources(commit: str) -> Iterator[Path]:
    """The sources of a commit, in a folder that is gone afterwards."""
    packed = subprocess.run(
        ["git", "archive", commit, "src"], cwd=_ROOT, capture_output=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory(prefix="everpost-upgrade-") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder) / "src"


def _tell(words: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {words}\n")


def _replace(node: House, sources: Path) -> None:
    assert node.stop() == 0, node.tail()
    node.use(PYTHONPATH=str(sources))
    node.start()
    node.wait_ready(200)


def _wait_more(clients: Sequence[Poster]) -> None:
    def accepted() -> int:
        return sum(len(client.accepted) for client in clients)

    before = accepted()
    wait_until(lambda: accepted() > before + 400, seconds=60, what="traffic")


def upgrade(commit: str, *, rate: float) -> Upgraded:
    """Start three nodes of `commit`, take each to these sources, then each back."""
    with (
        tempfile.TemporaryDirectory(prefix="everpost-upgrade-") as name,
        _sources(commit) as old,
        FarEnd() as far,
        cluster(Path(name), settings={**_SETTINGS, "PYTHONPATH": str(old)}) as nodes,
        nodes.roles() as one,
    ):
        one.relay(far.url, tls="none")
        one.domain(signing="unsigned")
        with nodes.roles() as two, nodes.roles() as three:
            all_ = (one, two, three)
            count = max(1, round(rate / _PER_CLIENT))
            with (
                Balancer("haproxy", Path(name) / "front", [node.port for node in all_]) as front,
                posting(count, through_port(front.port), one.key) as clients,
            ):
                began = time.monotonic()
                for sources, words in ((_ROOT / "src", "to these sources"), (old, "back")):
                    for node in all_:
                        _tell(f"{node.data.name} {words}")
                        _replace(node, sources)
                        _wait_more(clients)
                seconds = time.monotonic() - began
            accepted = [id_ for client in clients for id_ in client.accepted]
            _tell(f"{len(accepted)} accepted; waiting for their delivery")
            far.wait_taken(len(accepted), seconds=180)
            wait_until(
                lambda: two.get("/status").json["states"].get("delivered") == len(accepted),
                seconds=60,
                what="all to be recorded",
            )
            nodes.command(two, "verify")
            copies = Counter(message.message_id for message in far.taken)
            return Upgraded(
                began_with=commit,
                seconds=seconds,
                accepted=len(accepted),
                failed=tuple(fault for client in clients for fault in client.failed),
                longest_s=max(client.longest for client in clients),
                delivered=len(copies),
                twice=copies.total() - len(copies),
                lost=len(accepted) - len(copies),
            )


def main() -> int:
    parser = argparse.ArgumentParser(description="Upgrade three nodes under load, and back.")
    parser.add_argument("commit", metavar="FROM", help="where the nodes come from")
    parser.add_argument("--rate", type=float, default=200, help="requests a second, about")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    found = upgrade(options.commit, rate=options.rate)
    if options.json:
        sys.stdout.write(json.dumps({**asdict(found), "rate": found.rate}) + "\n")
    else:
        sys.stdout.write(
            f"{found.accepted:,} requests in {found.seconds:.0f} s ({found.rate:.0f}/s): "
            f"{len(found.failed)} failed, {found.lost} lost, {found.twice} twice; "
            f"the longest answer took {found.longest_s:.2f} s\n"
        )
        sys.stdout.writelines(f"  {fault}\n" for fault in found.failed[:10])
    return 1 if found.failed or found.lost or found.twice else 0


if __name__ == "__main__":
    sys.exit(main())
