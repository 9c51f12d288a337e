"""A whole Everpost of the test's own: `everpost serve` as a user starts it, on loopback."""

import http.client
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everpost.cli.checked_store import store_of
from everpost.cli.setup import settings_of
from everpost.cli.verifying import verify_store
from everpost.ledger.findings import said
from tests.support.waiting import wait_until

__all__ = ["KEY", "Answer", "House"]

KEY = "ep_test0first0k_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
_ROOT = Path(__file__).parents[2]
_INSIDE = Path(__file__).with_name("inside")
_READY = re.compile(rb"Everpost is ready at http://([0-9.]+):(\d+)")


class Answer:
    """An HTTP answer: status, headers, decoded JSON."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


class House:
    """`with House(tmp_path) as house: house.post("/emails", {...})`.

    `settings` are environment overrides (`EVERPOST_…`); `key` None lets the server make one;
    `prefix` is a program that becomes the server after its work (`strace -D …`, `unshare …`);
    `inside` names modules that are loaded into each of the server's processes first; `log` is
    where its stderr goes, beside the data unless told otherwise; `processes` None and not `admin`:
    the configuration file says how many, and where the admin listener is.
    """

    def __init__(
        self,
        data: Path,
        *,
        settings: Mapping[str, str] | None = None,
        key: str | None = KEY,
        processes: int | None = 2,
        prefix: Sequence[str] = (),
        inside: Sequence[str] = (),
        log: Path | None = None,
        admin: bool = True,
    ) -> None:
        self.data = data
        self.key = key or ""
        self._given_key = key
        self._settings = dict(settings or {})
        self._processes = processes
        self._prefix = prefix
        self._inside = inside
        self._admin = admin
        self._process: subprocess.Popen[bytes] | None = None
        self.host = "127.0.0.1"
        self.port = 0
        self.said = b""
        self.log = log or data.parent / f"{data.name}.log"

    # -- its life ----------------------------------------------------------------------------------

    def __enter__(self) -> "House":
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def use(self, **settings: str) -> None:
        """From the next start on."""
        self._settings |= settings

    def start(self, *, wait: bool = True) -> None:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("EVERPOST_")},
            "EVERPOST_NODE_HOSTNAME": "sender.test",
            # Nobody there: a test asks no name server but its own.
            "EVERPOST_DNS_SERVERS": "127.0.0.1",
            "EVERPOST_DNS_PORT": "1",
            "EVERPOST_DNS_TIMEOUT_S": "0.5",
            **self._settings,
        }
        if self._processes is not None:
            environment.setdefault("EVERPOST_NODE_PROCESSES", str(self._processes))
        if self._inside:
            environment["INSIDE"] = " ".join(self._inside)
            environment["PYTHONPATH"] = os.pathsep.join((str(_INSIDE), str(_ROOT)))
        if self._given_key:
            environment["EVERPOST_FIRST_API_KEY"] = self._given_key
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "everpost", *self._words()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        if wait:
            self._await_ready()

    def _words(self) -> Sequence[str]:
        """The command that becomes the server."""
        admin = ("--admin-listen", "127.0.0.1:0") if self._admin else ()
        return (
            *("serve", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}"),
            *admin,
        )

    def _await_ready(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        os.set_blocking(out, False)
        self.said = b""
        deadline = time.monotonic() + 40
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while b"Send a first message" not in self.said or not self.said.endswith(b"\n\n"):
                if not selector.select(deadline - time.monotonic()):
                    raise AssertionError(f"not ready in 40 s\n{self.tail()}")
                chunk = os.read(out, 65536)
                if not chunk:
                    raise AssertionError(f"ended at start: {self.said!r}\n{self.tail()}")
                self.said += chunk
        found = _READY.search(self.said)
        assert found is not None
        self.port = int(found[2])

    def stop(self) -> int:
        """SIGTERM and wait for the end; the exit code."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.terminate()
        try:
            code = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end in 60 s after SIGTERM\n{self.tail()}") from None
        if process.stdout is not None:
            process.stdout.close()
        self._process = None
        return code

    def kill(self) -> None:
        """kill -9 of the supervisor; its children must die with it."""
        assert self._process is not None
        children = self.children()
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        wait_until(
            lambda: not any(_alive(pid) for pid in children),
            seconds=10,
            what="the children to die with their supervisor",
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait_end(self, seconds: float) -> int:
        """Wait for an end that nobody asked for; the exit code."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            return self._process.wait(timeout=seconds)
        finally:
            self._end()

    def _end(self) -> None:
        """Nothing of it is left, however it is."""
        if self._process is not None:
            self.kill()

    def children(self, role: str = "") -> list[int]:
        """Process ids of the children, of one role or of all."""
        found = []
        for pid in _children(self.pid):
            command = _command(pid)
            if b"run" in command and (not role or role.encode() in command):
                found.append(pid)
        return found

    def kill_role(self, role: str) -> None:
        """kill -9 one process of a role, and wait until it is gone."""
        pid = self.children(role)[0]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _alive(pid), seconds=10, what=f"process {pid} to be gone")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    # -- its API -----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
            data = None
            if body is not None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                sent.setdefault("Content-Type", "application/json")
            connection.request(method, path, body=data, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers.items()), answer.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.call("POST", path, body, headers=headers)

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def send(self, **fields: Any) -> str:
        """POST /emails with sensible defaults; the id."""
        draft = {
            "from": "Sender <sender@example.test>",
            "to": ["to@receiver.test"],
            "subject": "A test",
            "text": "Hello.\n",
            **{k.rstrip("_"): v for k, v in fields.items()},
        }
        answer = self.post("/emails", draft)
        assert answer.status == 200, answer
        return str(answer.json["id"])

    def recipients(self, id_: str) -> list[dict[str, Any]]:
        answer = self.get(f"/emails/{id_}/recipients")
        assert answer.status == 200, answer
        data: list[dict[str, Any]] = answer.json["data"]
        return data

    def events(self, id_: str) -> list[dict[str, Any]]:
        answer = self.get(f"/emails/{id_}/events")
        assert answer.status == 200, answer
        data: list[dict[str, Any]] = answer.json["data"]
        return data

    def wait_status(self, id_: str, *statuses: str, seconds: float = 30) -> list[dict[str, Any]]:
        """Wait until every recipient shows one of `statuses`."""
        last: list[dict[str, Any]] = []

        def done() -> bool:
            nonlocal last
            last = self.recipients(id_)
            return all(r["status"] in statuses for r in last)

        wait_until(done, seconds=seconds, what=lambda: f"{statuses}: {last}\n{self.tail()}")
        return last

    def alarms(self) -> list[str]:
        found: list[str] = self.get("/status").json["alarms"]
        return found

    def wait_alarm(self, name: str, *, stands: bool = True, seconds: float = 20) -> None:
        """Until the alarm stands, or does not any more."""
        wait_until(
            lambda: (name in self.alarms()) == stands,
            seconds=seconds,
            what=lambda: f"{name} to stand: {stands}; there are {self.alarms()}\n{self.tail()}",
        )

    def wait_ready(self, status: int, *, seconds: float = 20) -> None:
        """Until readiness answers so; what it answers is up to a second old."""
        wait_until(
            lambda: self.get("/health/ready").status == status,
            seconds=seconds,
            what=f"{status} of ready",
        )

    def relay(self, url: str, **fields: Any) -> None:
        answer = self.post("/relays", {"url": url, **fields})
        assert answer.status in (200, 201), answer

    def domain(self, name: str = "example.test", **fields: Any) -> dict[str, Any]:
        answer = self.post("/domains", {"name": name, "trust": True, **fields})
        assert answer.status in (200, 201), answer
        found: dict[str, Any] = answer.json
        return found

    def findings(self) -> list[str]:
        """What is wrong with its books, as `everpost verify` finds it; it may be running."""
        store = store_of(settings_of(None, self._settings, {"node.data": self.data}))
        outcome = verify_store(store, processes=1, each=lambda *_: None)
        return [said(finding) for finding in outcome.findings.kept]

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`everpost WORDS --data …` as a user on this machine runs it."""
        return subprocess.run(
            [sys.executable, "-m", "everpost", *words, "--data", str(self.data)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def dkim_records(domain: Mapping[str, Any]) -> dict[str, str]:
    """TXT records by name, of a domain as the API shows it."""
    records: Sequence[Mapping[str, str]] = domain["records"]
    return {
        r["name"].removesuffix(".").removesuffix(f".{domain['name']}") + f".{domain['name']}": r[
            "value"
        ]
        for r in records
        if r["record"] == "DKIM"
    }


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            found.append(int(entry.name))
    return sorted(found)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
