"""A real name server (knot) with zones of the test's own, which it can silence and let speak."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.waiting import wait_until

__all__ = ["Knot"]

_CONFIG = """
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
control:
    listen: "{folder}/knot.sock"
log:
  - target: stderr
    any: error
database:
    storage: "{folder}/db"
policy:
  - id: signed
    algorithm: ecdsap256sha256
    single-type-signing: on
template:
  - id: default
    storage: "{folder}"
zone:
"""


class Knot:
    """`with Knot(folder, {"good.test": RECORDS}) as knot: … knot.port`.

    A zone's text is what follows `$ORIGIN` and `$TTL 600`; it gets an SOA (negative answers live
    120 s) and an NS. None makes a zone that cannot be loaded: SERVFAIL. `signed` zones are signed
    by DNSSEC. Whatever lies in no zone is REFUSED.
    """

    def __init__(
        self, folder: Path, zones: Mapping[str, str | None], *, signed: tuple[str, ...] = ()
    ) -> None:
        program = shutil.which("knotd", path="/usr/sbin:/usr/bin")
        assert program, "knotd is missing: apt-get install knot"
        self._program = program
        self._zones = dict(zones)
        self._signed = signed
        self._serial = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> "Knot":
        config = _CONFIG.format(folder=self.folder, port=self.port)
        for zone, text in self._zones.items():
            config += f"  - domain: {zone}\n    file: {zone}.zone\n"
            if zone in self._signed:
                config += "    dnssec-signing: on\n    dnssec-policy: signed\n"
            if text is not None:
                self.write(zone, text)
        (self.folder / "knot.conf").write_text(config)
        (self.folder / "db").mkdir()
        self._process = subprocess.Popen([self._program, "-c", str(self.folder / "knot.conf")])
        loaded = [zone for zone, text in self._zones.items() if text is not None]
        try:
            wait_until(
                lambda: all(self.control("zone-read", zone, "@", "SOA") for zone in loaded),
                seconds=20,
                what="knotd to serve its zones",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def control(self, *command: str) -> bool:
        program = ["knotc", "-s", str(self.folder / "knot.sock"), *command]
        return subprocess.run(program, capture_output=True, check=False).returncode == 0

    def keys(self, zone: str) -> str:
        """A signed zone's DS records, to trust it by."""
        return subprocess.run(
            ["keymgr", "-c", str(self.folder / "knot.conf"), zone, "ds"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def write(self, zone: str, text: str) -> None:
        self._serial += 1
        (self.folder / f"{zone}.zone").write_text(
            f"$ORIGIN {zone}.\n$TTL 600\n"
            f"@ SOA ns root {self._serial} 3600 600 86400 120\n@ NS ns\nns A 127.0.0.1\n{text}"
        )

    def change(self, zone: str, text: str) -> None:
        """Serve other records from now on."""
        self.write(zone, text)
        assert self.control("-b", "zone-reload", zone)

    def pause(self) -> None:
        """SIGSTOP: whoever asks gets no answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
