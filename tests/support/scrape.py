"""What a server's /metrics says."""

import http.client
import re

from tests.support.house import House

__all__ = ["admin_port", "scrape"]

_ADMIN = re.compile(rb"http://127\.0\.0\.1:(\d+)/metrics")


def admin_port(house: House) -> int:
    """The port of the listener that serves /metrics, as the server said when it was ready."""
    found = _ADMIN.search(house.said)
    assert found is not None, house.said
    return int(found[1])


def scrape(house: House) -> dict[str, float]:
    """Values by name and labels, as Prometheus' text has them."""
    connection = http.client.HTTPConnection("127.0.0.1", admin_port(house), timeout=20)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
    finally:
        connection.close()
    lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in lines}
