"""File descriptors: how many this process may open, how many it has, how many are for connections.

When they run out, libuv takes connections off the kernel's queue with one that it keeps in reserve,
and closes them at once; where its reserve's number is above a limit that was lowered meanwhile, it
tries for ever (measured: 100 % of a core). So listeners stop short of that, and stop accepting when
there is none left; the store, wake-ups and look-ups keep theirs.
"""

import contextlib
import errno
import os
import resource

__all__ = ["Descriptors", "most_connections", "raise_limit"]

_RESERVE = 64
"""Kept from connections: the store's files, wake-ups, look-ups."""
_MOST = 1 << 20
"""What an endless limit is taken for."""
_FOLDER = "/proc/self/fd"


def raise_limit() -> int:
    """Allow this process as many descriptors as it may allow itself; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def limit() -> int:
    """As many may be open now; another process may change it (prlimit)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else soft


def most_connections(*, allowed: int, others: int, wanted: int) -> int:
    """How many connections there may be beside `others` descriptors, `wanted` at most. Pure."""
    reserve = min(_RESERVE, allowed // 4)
    return max(0, min(wanted, allowed - others - reserve))


class Descriptors:
    """Counts this process' descriptors, also when there are no more."""

    def __init__(self) -> None:
        self._spare = _open_spare()

    def open(self) -> int:
        """How many are open now."""
        try:
            return _count()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
        # Lend the listing the spare one, which is itself one of those that are open.
        self.close()
        try:
            return _count() + 1
        except OSError:  # its number was above the limit
            return limit()
        finally:
            with contextlib.suppress(OSError):
                self._spare = _open_spare()

    def exhausted(self) -> bool:
        """Whether not one more can be opened."""
        try:
            os.close(os.dup(self._spare if self._spare >= 0 else 0))
        except OSError as error:
            if error.errno == errno.EMFILE:
                return True
            raise
        return False

    def close(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
        self._spare = -1


def _open_spare() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _count() -> int:
    return len(os.listdir(_FOLDER)) - 1  # the listing itself has one
