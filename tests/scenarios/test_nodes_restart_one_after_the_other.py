"""F16: three nodes on one PostgreSQL are restarted one after the other, as an upgrade does it,
while clients post through the balancers' files of deploy/, without keys and without trying again.
No request fails; every message goes out once, whoever accepted it and whoever was to send it.

Invariants: I1, I3, I4, I8, I9.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.deployed import Balancer
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.nodes import cluster
from tests.support.posting import Poster, posting, through_port
from tests.support.waiting import wait_until

CLIENTS = 4
SETTINGS = {"EVERPOST_HTTP_LINGER_S": "3", "EVERPOST_DISPATCH_POLL_S": "0.2"}


def _states(house: House) -> dict[str, int]:
    found: dict[str, int] = house.get("/status").json["states"]
    return found


def _restart(node: House) -> None:
    assert node.stop() == 0, node.tail()
    node.start()
    node.wait_ready(200)


def _wait_more(clients: list[Poster]) -> None:
    def accepted() -> int:
        return sum(len(client.accepted) for client in clients)

    before = accepted()
    wait_until(lambda: accepted() > before + 50, seconds=30, what="traffic")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_a_request_fails_or_a_message_goes_out_twice(kind: str, tmp_path: Path) -> None:
    with FarEnd() as far, cluster(tmp_path, settings=SETTINGS) as nodes, nodes.roles() as one:
        one.relay(far.url, tls="none")
        one.domain(signing="unsigned")
        with nodes.roles() as two, nodes.roles() as three:
            all_ = (one, two, three)
            ports = [node.port for node in all_]
            with (
                Balancer(kind, tmp_path / "front", ports) as front,
                posting(CLIENTS, through_port(front.port), one.key) as clients,
            ):
                for node in all_:
                    _restart(node)
                    _wait_more(clients)
            assert [fault for client in clients for fault in client.failed] == []
            accepted = [id_ for client in clients for id_ in client.accepted]
            assert len(set(accepted)) == len(accepted)
            far.wait_taken(len(accepted), seconds=120)
            wait_until(
                lambda: _states(two).get("delivered") == len(accepted),
                seconds=30,
                what=lambda: f"{len(accepted)} to be recorded: {_states(two)}",
            )
            copies = Counter(message.message_id for message in far.taken)
            assert len(copies) == copies.total() == len(accepted)
            nodes.command(two, "verify")  # it ends with 0: nothing is wrong with the books
