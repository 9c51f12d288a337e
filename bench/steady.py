"""A few posts at a steady rate, beside whatever else goes on."""

import time
from concurrent.futures import ThreadPoolExecutor

from bench.http_load import HTML, TEXT
from tests.support.house import House

__all__ = ["post_steadily"]


def post_steadily(house: House, *, rate: float, seconds: float) -> dict[str, float]:
    """Post to one destination at a rate; when each post was due to begin, by id."""
    began = time.monotonic() + 0.2
    body = {
        "from": "bench@example.test", "to": "user@quick.test", "subject": "x",
        "html": HTML, "text": TEXT,
    }  # fmt: skip

    def one(n: int) -> tuple[str, float]:
        due = began + n / rate
        time.sleep(max(due - time.monotonic(), 0))
        answer = house.post("/emails", body)
        if answer.status != 200:
            raise RuntimeError(str(answer))
        return str(answer.json["id"]), due

    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(one, range(int(rate * seconds))))
