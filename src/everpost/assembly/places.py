"""Where things lie in the data directory."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Places"]


@dataclass(frozen=True, slots=True)
class Places:
    """Paths below `data`. `run` holds what only living processes mean."""

    data: Path

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    @property
    def store(self) -> Path:
        return self.data / "everpost.db"

    @property
    def journal(self) -> Path:
        """What was accepted while no database answered."""
        return self.data / "journal.db"

    @property
    def set_aside(self) -> Path:
        """Rows that `everpost verify --repair` took out of the store."""
        return self.data / "set-aside"

    @property
    def master_key(self) -> Path:
        return self.data / "master.key"

    @property
    def run(self) -> Path:
        return self.data / "run"

    @property
    def metrics(self) -> Path:
        return self.run / "metrics"

    @property
    def clock(self) -> Path:
        return self.run / "clock.json"

    @property
    def operator_socket(self) -> Path:
        return self.run / "admin.sock"

    @property
    def torn(self) -> Path:
        """What the store's log had lost at the last start; no such file: nothing."""
        return self.run / "log-torn"

    @property
    def children(self) -> Path:
        return self.run / "children.json"

    def make(self) -> None:
        """Make the directories, readable by their owner alone."""
        for folder in (self.data, self.run, self.metrics):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def forget_gauges(self, label: str) -> None:
        """Of a process that ended: they say how things are, and it is no more. (By name: the
        metrics' own code is more than the supervisor should load.) Where the disk does not let it
        (F7) they stay: nothing ends for that."""
        with contextlib.suppress(OSError):
            for path in self.metrics.glob(f"gauge_*_{label}.db"):
                path.unlink(missing_ok=True)
