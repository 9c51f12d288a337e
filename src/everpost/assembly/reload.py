"""The other side of a reload: finds the server of a data directory, judges the configuration as it
will, and tells it to read it again."""

import fcntl
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from everpost.assembly.places import Places
from everpost.config import load
from everpost.recovery.children import Children, Reload, read_children

__all__ = ["Server"]


class Server:
    """The server that has `data`. `pid` None: none has."""

    def __init__(self, data: Path) -> None:
        self._places = Places(data.absolute())
        self.pid = self._find()

    def _find(self) -> int | None:
        """Its lock tells, and dies with it; a process id alone may be another program's by now."""
        try:
            fd = os.open(self._places.lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 32).strip()
            return int(owner) if owner.isdigit() else None
        else:
            return None
        finally:
            os.close(fd)

    def facts(self) -> Children | None:
        """What it says of itself; None: nothing yet. Raises OSError."""
        return read_children(self._places.children)

    def judge(self, facts: Children) -> None:
        """Read the configuration from where the server does, as far as that can be seen from here.
        Raises ConfigError."""
        environment = {**self._environment(), "EVERPOST_NODE_DATA": str(self._places.data)}
        load(Path(facts.file) if facts.file else None, environment, facts.options)

    def _environment(self) -> Mapping[str, str]:
        """What it was started with; of another user's process, nothing."""
        try:
            raw = Path(f"/proc/{self.pid}/environ").read_bytes()
        except OSError:
            return {}
        pairs = (os.fsdecode(pair).partition("=") for pair in raw.split(b"\0") if pair)
        return {name: value for name, _, value in pairs if name.startswith("EVERPOST_")}

    def reload(self) -> None:
        """Raises OSError: it is another user's, or has just ended."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGHUP)

    def outcome(self, after: int) -> Reload | None:
        """Of a reload after number `after`, once it is over."""
        facts = self.facts()
        if facts is None or facts.reload.number <= after or not facts.reload.state.over:
            return None
        return facts.reload
