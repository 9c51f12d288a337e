"""Clients: each does one operation after another, with a key until the answer is known."""

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.history import History
from tests.chaos.operations import DOMAIN, WEIGHTS, Message, Operation, Operations, text_of
from tests.support.house import House

__all__ = ["Client"]

_CATCHES_UP_S = 10.0
"""What an outage kept a client from sending, it sends afterwards."""
_CANCELLED = 0.4
_READ = 0.08
_REPEATED = 0.15
_REMEMBERS = 40
_UNSURE = (408, 425, 429, 500, 502, 503, 504)
"""Under a key it is asked again: the first request may be running still, or the server is busy."""


class Client(threading.Thread):
    """Goes on until `ended`, then settles its last operation. `rate`: messages a second.
    `stuck` is an operation that never got an answer; `hopeless`: none is asked for any more;
    `error`: what ended it early, such as an answer that makes no sense."""

    tries = 900
    """Of an operation under a key, until there is an answer that says what became of it."""
    timeout_s = 20.0
    weights: Mapping[str, int] = WEIGHTS
    pause_s = 0.1

    def __init__(
        self, house: House, history: History, *, number: int, seed: int, rate: float
    ) -> None:
        super().__init__(daemon=True)
        self._house = house
        self._history = history
        self._number = number
        self._operations = Operations(seed, number, weights=self.weights)
        self._rate = rate
        self._connection: http.client.HTTPConnection | None = None
        self._ids: list[str] = []
        self._durability = ""
        self._keyed: deque[tuple[str, str, Any]] = deque(maxlen=_REMEMBERS)
        self.ended = threading.Event()
        self.hopeless = threading.Event()
        self.stuck: str | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._go_on()
        except Exception as error:  # the run fails of it
            self.error = error
        finally:
            self._let_go()

    def _go_on(self) -> None:
        due = time.monotonic()
        while not self.ended.is_set() and self.stuck is None:
            operation = self._operations.next()
            ids = self._send(operation)
            if ids and operation.kind == "later" and self._operations.choice(_CANCELLED):
                self._cancel(operation, ids[0])
            if self._keyed and self._operations.choice(_REPEATED):
                self._repeat(*self._keyed[self._operations.pick(len(self._keyed))])
            if self._ids and self._operations.choice(_READ):
                self._get(self._ids[self._operations.pick(len(self._ids))])
            now = time.monotonic()
            due = max(due + len(operation.messages) / self._rate, now - _CATCHES_UP_S)
            self.ended.wait(max(0.0, due - now))

    # -- operations --------------------------------------------------------------------------------

    def _send(self, operation: Operation) -> list[str]:
        """The ids that were answered."""
        due = [time.monotonic() + m.wait_s for m in operation.messages if m.wait_s]
        body = _body(operation)
        self._history.write(
            "invoke",
            op=operation.kind,
            key=operation.name,
            messages=[m.recipients for m in operation.messages],
            policies=[m.policy for m in operation.messages],
            due=due[0] if due else 0.0,
        )
        path = "/emails/batch" if operation.batch else "/emails"
        if operation.kind == "hang_up":
            self._hang_up(path, body, operation)
            return []
        key = operation.name if operation.keyed else None
        for again in range(self.tries if key else 1):
            if again:
                if self.hopeless.wait(self.pause_s):  # else the server is being started again
                    break
                self._history.write("invoke", op=operation.kind, key=operation.name)
            answer = self._try("POST", path, operation.name, body, key=key)
            if answer is None:
                continue
            status, value = answer
            if status == 200:
                made = value["data"] if operation.batch else [value]
                ids = [str(each["id"]) for each in made]
                told = {str(m["durability"]) for m in (value, *made) if "durability" in m}
                kept = sorted(told | {self._durability} - {""})
                self._history.write(
                    "ok", op=operation.kind, key=operation.name, ids=ids, durability=kept
                )
                self._ids += ids
                if key:
                    self._keyed.append((key, path, body))
                return ids
            self._history.write("fail", op=operation.kind, key=operation.name, status=status)
            if status not in _UNSURE:
                return []
        if key:
            self._gives_up(operation.name)
        return []

    def _gives_up(self, name: str) -> None:
        self.stuck = name

    def _repeat(self, key: str, path: str, body: Any) -> None:
        """An operation that was acknowledged a while ago, again: the first answer is due."""
        self._history.write("invoke", op="repeat", key=key)
        answer = self._try("POST", path, key, body, key=key)
        if answer is None:
            return
        status, value = answer
        if status == 200:
            made = value.get("data", [value])
            self._history.write("ok", op="repeat", key=key, ids=[str(m["id"]) for m in made])
        else:
            self._history.write("fail", op="repeat", key=key, status=status)

    def _cancel(self, operation: Operation, id_: str) -> None:
        name = f"{operation.name}/cancel"
        self._history.write("invoke", op="cancel", key=name, of=operation.name)
        answer = self._try("POST", f"/emails/{id_}/cancel", name)
        if answer is not None:
            kind = "ok" if answer[0] == 200 else "fail"
            self._history.write(kind, op="cancel", key=name, of=operation.name, status=answer[0])

    def _get(self, id_: str) -> None:
        self._history.write("invoke", op="get", key=id_, of=id_)
        answer = self._try("GET", f"/emails/{id_}", id_)
        if answer is not None:
            kind = "ok" if answer[0] == 200 else "fail"
            self._history.write(kind, op="get", key=id_, of=id_, status=answer[0])

    def _hang_up(self, path: str, body: Any, operation: Operation) -> None:
        """Send all of it and be gone, with a reset now and then."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self._house.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        there = self._address()
        with contextlib.suppress(OSError), socket.create_connection(there, timeout=5) as sock:
            sock.sendall(head.encode() + data)
            if self._operations.choice(0.5):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._history.write("info", op=operation.kind, key=operation.name, why="hung up")

    # -- below them --------------------------------------------------------------------------------

    def _try(
        self, method: str, path: str, name: str, body: Any = None, *, key: str | None = None
    ) -> tuple[int, Any] | None:
        """Status and JSON; None when there is no telling, which the history then says."""
        headers = {"Authorization": f"Bearer {self._house.key}"}
        data = None
        if body is not None:
            data = json.dumps(body)
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request(method, path, body=data, headers=headers)
            answer = self._connection.getresponse()
            text = answer.read()
            self._durability = answer.getheader("Everpost-Durability", "")
        except (OSError, http.client.HTTPException) as error:
            self._let_go()
            self._history.write("info", key=name, why=repr(error))
            return None
        return answer.status, self._understand(answer.status, text)

    def _understand(self, _: int, text: bytes) -> Any:
        return json.loads(text)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address()
        return http.client.HTTPConnection(host, port, timeout=self.timeout_s)

    def _address(self) -> tuple[str, int]:
        return self._house.host, self._house.port

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _body(operation: Operation) -> Any:
    drafts = [_draft(message) for message in operation.messages]
    if operation.kind == "invalid_batch":
        drafts[-1]["from"] = "nobody"
    return drafts if operation.batch else drafts[0]


def _draft(message: Message) -> dict[str, Any]:
    draft: dict[str, Any] = {
        "from": "a@example.test",
        "to": [f"{element}@{DOMAIN}" for element in message.recipients],
        "subject": message.name,
        "text": text_of(message.name),
        "in_doubt": message.policy,
    }
    if message.wait_s:
        due = datetime.now(UTC) + timedelta(seconds=message.wait_s)
        draft["scheduled_at"] = due.isoformat(timespec="milliseconds")
    return draft
