"""Clients that send under a key each, again until the answer is known, and read back."""

import http.client
import json
import threading
from typing import Any

from tests.chaos.history import History
from tests.support.house import House

__all__ = ["Client"]


class Client(threading.Thread):
    """Sends one message after another, each to an address that names its key, until `ended`;
    then it settles its last key. `stuck` is a key that was never acknowledged."""

    def __init__(self, house: House, history: History, number: int, gap_s: float) -> None:
        super().__init__(daemon=True)
        self._house = house
        self._history = history
        self._number = number
        self._gap_s = gap_s
        self._connection: http.client.HTTPConnection | None = None
        self.ended = threading.Event()
        self.stuck: str | None = None

    def run(self) -> None:
        n = 0
        while not self.ended.is_set() and self.stuck is None:
            key = f"c{self._number}-{n}"
            n += 1
            if not any(self._try(key) or self._pause() for _ in range(600)):
                self.stuck = key
            self.ended.wait(self._gap_s)
        self._hang_up()

    def _pause(self) -> bool:
        threading.Event().wait(0.1)  # the server is being started again
        return False

    def _try(self, key: str) -> bool:
        self._history.write("invoke", client=self._number, op="send", key=key)
        draft = {
            "from": "a@example.test",
            "to": f"{key}@receiver.test",
            "subject": key,
            "text": f"{key}\n",
        }
        try:
            status, answer = self._call(key, draft)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._hang_up()
            self._history.write("info", client=self._number, key=key, why=repr(error))
            return False
        if status != 200:
            self._history.write("fail", client=self._number, key=key, status=status)
            return False
        self._history.write("ok", client=self._number, key=key, id=str(answer["id"]))
        return True

    def _call(self, key: str, draft: dict[str, str]) -> tuple[int, Any]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                self._house.host, self._house.port, timeout=20
            )
        headers = {
            "Authorization": f"Bearer {self._house.key}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        }
        self._connection.request("POST", "/emails", body=json.dumps(draft), headers=headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
