"""F60: a relay goes up and down, up and down. Each time it falls it is left alone for longer, so
that mail meets it less and less; none is lost, deferred or slow for it.

Invariants: I5, I18.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.far_end import FarEnd
from tests.support.hosting import hosted, url_of
from tests.support.journal import logged, wait_logged
from tests.support.stage import attempts_of, check_record, relays, serving
from tests.support.tiny_smtp import Close, ScriptedServer
from tests.support.waiting import wait_until

FIRST_S = 0.1
FALLS = 3


def test_mail_flaps_with_it(tmp_path: Path) -> None:
    flapping = ScriptedServer()
    down = {verb: Close() for verb in ("BANNER", "EHLO", "MAIL", "RSET")}
    ids: list[str] = []
    with (
        hosted(flapping),
        FarEnd() as good,
        serving(tmp_path, {"EVERPOST_DELIVERY_EJECT_S": str(FIRST_S)}) as house,
        relays(
            house,
            flapping={"url": url_of(flapping), "probe": False, "weight": 1},
            good=good.url,
        ),
    ):

        def turned(state: str, count: int) -> list[dict[str, Any]]:
            return logged(house, "relay.circuit", relay="flapping", state=state)[:count]

        def until(state: str, count: int) -> None:
            """Mail comes until it has turned so for this time."""

            def there() -> bool:
                ids.append(house.send())
                house.wait_status(ids[-1], "delivered")
                return len(turned(state, count)) == count

            wait_until(there, seconds=20, what=lambda: f"{state} {count}\n{house.tail()}")

        for fall in range(1, FALLS + 1):
            flapping.script = down
            until("open", fall)
            flapping.script = {}
            until("closed", fall)

        opened = wait_logged(house, "relay.circuit", relay="flapping", state="open")
        closed = wait_logged(house, "relay.circuit", relay="flapping", state="closed")
        assert [event["ejections"] for event in opened] == list(range(1, FALLS + 1))
        for n, (out, back) in enumerate(zip(opened, closed, strict=True)):
            assert back["at"] - out["at"] >= FIRST_S * 2**n - 0.01, (out, back)
        assert all(a["at"] < b["at"] for a, b in pairwise(closed))
        for id_ in ids:
            (attempt,) = attempts_of(house, id_)
            assert [tried["relay"] for tried in attempt["tried"]] in ([], ["flapping"])
            check_record(house, id_)
        met = sum(bool(attempts_of(house, id_)[0]["tried"]) for id_ in ids)
        assert met <= 2 * FALLS, met
