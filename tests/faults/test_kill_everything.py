"""F50: every process, the supervisor too, is killed at random during 5,000 sends. Every
acknowledged message is delivered, and a second copy exists only where the record says that an
attempt was in doubt.

Invariants: I1, I3, I4, I7, I8.
"""

import http.client
import json
import os
import random
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.waiting import wait_until

MESSAGES = 5_000
CLIENTS = 8
KILLS = 12


@dataclass
class History:
    """What the clients did: `acknowledged` maps an idempotency key to the id answered with 200."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    attempted: set[str] = field(default_factory=set)
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client(threading.Thread):
    """Sends its share, each message under its own key, again until it is acknowledged."""

    def __init__(self, house: House, history: History, keys: list[str]) -> None:
        super().__init__(daemon=True)
        self._house = house
        self._history = history
        self._keys = keys
        self._connection: http.client.HTTPConnection | None = None
        self.stuck: str | None = None

    def run(self) -> None:
        try:
            self._send_all()
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _send_all(self) -> None:
        for key in self._keys:
            with self._history.lock:
                self._history.attempted.add(key)
            for _ in range(2_000):
                id_ = self._try(key)
                if id_ is not None:
                    break
                threading.Event().wait(0.05)  # the server is being started again
            else:
                self.stuck = key
                return
            with self._history.lock:
                self._history.acknowledged[key] = id_
                self._history.done += 1

    def _try(self, key: str) -> str | None:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(
                    self._house.host, self._house.port, timeout=20
                )
            self._connection.request(
                "POST",
                "/emails",
                body=json.dumps(
                    {
                        "from": "a@example.test",
                        "to": f"{key}@receiver.test",
                        "subject": key,
                        "text": "x\n",
                    }
                ),
                headers={
                    "Authorization": f"Bearer {self._house.key}",
                    "Content-Type": "application/json",
                    "Idempotency-Key": key,
                },
            )
            answer = self._connection.getresponse()
            body = answer.read()
            return str(json.loads(body)["id"]) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return None


def _has_come_to(history: History, goal: int, clients: list[Client]) -> bool:
    return history.done >= goal or not any(c.is_alive() for c in clients)


def _kill_one(house: House, rng: random.Random) -> str:
    """kill -9 a child, or now and then the supervisor itself (then start it again)."""
    victims = house.children()
    if rng.random() < 0.2 or not victims:
        house.kill()
        house.start()
        return "supervisor"
    victim = rng.choice(victims)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return "child"


def test_processes_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    rng = random.Random(20261123)
    history = History()
    keys = [f"k{n}" for n in range(MESSAGES)]
    with FarEnd() as far, House(tmp_path / "d") as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        clients = [Client(house, history, keys[n::CLIENTS]) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        killed: Counter[str] = Counter()
        for n in range(KILLS):
            goal = (n + 1) * MESSAGES // (KILLS + 2)
            wait_until(
                partial(_has_come_to, history, goal, clients),
                seconds=120,
                what=lambda: f"progress ({history.done})\n{house.tail()}",
            )
            killed[_kill_one(house, rng)] += 1
        for client in clients:
            client.join(120)
            assert client.stuck is None, f"{client.stuck} was never acknowledged\n{house.tail()}"
        assert len(history.acknowledged) == MESSAGES
        assert sum(killed.values()) == KILLS

        _drain(house)
        _check(house, far, history)


def _drain(house: House) -> None:
    def empty() -> bool:
        states = house.get("/status").json["states"]
        return not any(states.get(s, 0) for s in ("queued", "claimed", "held"))

    wait_until(empty, seconds=120, what=lambda: f"the queue to drain\n{house.tail()}")


def _check(house: House, far: FarEnd, history: History) -> None:
    copies = Counter(m.recipients[0].partition("@")[0] for m in far.complete)
    lost = [k for k in history.acknowledged if not copies[k]]
    assert lost == []
    assert set(copies) - history.attempted == set()
    status = house.get("/status").json
    assert status["states"]["delivered"] == MESSAGES == status["accepted"]
    for key, count in copies.items():
        if count > 1:
            id_ = history.acknowledged[key]
            in_doubt = [e for e in house.events(id_) if e["type"] == "in_doubt"]
            assert count - 1 <= len(in_doubt), f"{key}: {count} copies, {house.events(id_)}"
    assert house.findings() == []
    same_id = {m.recipients[0]: m.message_id for m in far.complete}
    assert all(same_id[m.recipients[0]] == m.message_id for m in far.complete)
