"""Who may compose at the same time as others of this process.

A crash counts against everything that was being composed (decision 0009), the innocent beside the
guilty. So what was there at a crash before composes alone from then on: only the guilty is there
at the next.
"""

import asyncio
from collections import deque

__all__ = ["Composing"]


class Composing:
    """In the order of asking; while one waits to be alone, nobody passes it."""

    def __init__(self) -> None:
        self._inside = 0
        self._alone = False
        self._waiting: deque[tuple[asyncio.Future[None], bool]] = deque()

    def entered(self, *, alone: bool) -> bool:
        """Whether it is in at once; else it must wait for its `turn`. `leave` ends both."""
        if self._waiting or not self._may(alone=alone):
            return False
        self._enter(alone=alone)
        return True

    def leave(self) -> None:
        self._inside -= 1
        self._alone = False
        self._let_in()

    def _may(self, *, alone: bool) -> bool:
        return not self._alone and not (alone and self._inside)

    def _enter(self, *, alone: bool) -> None:
        self._inside += 1
        self._alone = alone

    async def turn(self, *, alone: bool) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, alone)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if entry in self._waiting:
                    self._waiting.remove(entry)
                self._let_in()
            else:  # it was let in, and cancelled before it saw that
                self.leave()
            raise

    def _let_in(self) -> None:
        while self._waiting and self._may(alone=self._waiting[0][1]):
            turn, alone = self._waiting.popleft()
            if not turn.cancelled():
                self._enter(alone=alone)
                turn.set_result(None)
