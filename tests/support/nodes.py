"""Nodes of one service on one PostgreSQL: each with a data directory of its own, on loopback."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.house import House
from tests.support.mail_hosts import free_port
from tests.support.postgres import Postgres, serving_postgres
from tests.support.waiting import wait_until

__all__ = ["Cluster", "Roles", "cluster"]

_ALL = ("api", "dispatch", "upkeep")


class Roles(House):
    """One node that runs `roles` in one process, as `everpost run ROLE…` does."""

    def __init__(self, data: Path, roles: Sequence[str], **options: Any) -> None:
        super().__init__(data, processes=1, admin=False, **options)
        self._roles = roles

    def start(self, *, wait: bool = True) -> None:
        self.port = self.port or free_port()
        self._settings |= {
            "EVERPOST_HTTP_LISTEN": f"127.0.0.1:{self.port}",
            "EVERPOST_HTTP_ADMIN_LISTEN": "",
        }
        self._began = self.log.stat().st_size if self.log.exists() else 0
        super().start(wait=wait)

    def _words(self) -> Sequence[str]:
        return ("run", *self._roles, "--data", str(self.data))

    def _await_ready(self) -> None:
        wait_until(self._is_ready, seconds=40, what=lambda: f"a node to be ready\n{self.tail()}")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"ended at start\n{self.tail()}"
        return b'"role.ready"' in self.log.read_bytes()[self._began :]


class Cluster:
    """One database, and nodes on it. All have the master key of the first one."""

    def __init__(self, folder: Path, server: Postgres, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.server = server
        self._settings = settings
        self._names = (f"n{number}" for number in itertools.count(1))
        self.first: House | None = None

    def settings(self, name: str) -> dict[str, str]:
        """Of the node `name`."""
        return {
            "EVERPOST_POSTGRES_URL": self.server.url("everpost", tcp=True),
            "EVERPOST_POSTGRES_STANDBYS": "0",
            "EVERPOST_CLUSTER_NAME": name,
            "EVERPOST_CLUSTER_HEARTBEAT_S": "0.3",
            "EVERPOST_CLUSTER_GONE_S": "2",
            "EVERPOST_CLUSTER_LEASE_S": "10",
            **self._settings,
        }

    def house(self, *, processes: int = 1, **settings: str) -> House:
        """A node under a supervisor, not yet started."""
        name = next(self._names)
        given = {**self.settings(name), **settings}
        node = House(self.folder / name, settings=given, processes=processes)
        self._prepare(node)
        return node

    def roles(self, *roles: str, inside: Sequence[str] = (), **settings: str) -> Roles:
        """A node that runs roles in one process, not yet started; all without any named."""
        name = next(self._names)
        given = {**self.settings(name), **settings}
        node = Roles(self.folder / name, roles or _ALL, settings=given, inside=inside)
        self._prepare(node)
        return node

    def command(self, node: House, *words: str) -> str:
        """What `everpost WORDS` says on a node, with the node's settings."""
        done = subprocess.run(
            [sys.executable, "-m", "everpost", *words, "--data", str(node.data)],
            env={**os.environ, **self.settings(node.data.name)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout

    def _prepare(self, node: House) -> None:
        node.data.mkdir(mode=0o700)
        if self.first is None:
            self.first = node
        elif (key := self.first.data / "master.key").exists():
            shutil.copy2(key, node.data / "master.key")


@contextlib.contextmanager
def cluster(
    folder: Path, *, quick: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """An empty database on a server of the test's own. `quick`: without flushes; Everpost refuses
    such a server, so only for tests of that."""
    with serving_postgres(quick=quick) as server:
        server.create("everpost")
        yield Cluster(folder, server, settings or {})
