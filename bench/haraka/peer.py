"""Haraka as `npm ci` brings it into a cache folder, queueing on disk and delivering to the sink.

Tuned as its own pages say: a worker a core (`nodes=cpus`) that accepts by itself
(`NODE_CLUSTER_SCHED_POLICY=none`), more threads for files (`UV_THREADPOOL_SIZE`), warnings only in
the log, no TLS, no DNS, no plugin but ours (and `dkim` where it signs). It syncs its queue file
before it answers 250, and opens a connection for each delivery: it has no way to keep one.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.far_end import FarEnd
from bench.figures import Figures, Work
from bench.processes import await_port, end, finish, free_port
from bench.smtp_load import drive

__all__ = ["run", "version"]

_HERE = Path(__file__).parent
_MANIFEST = ("package.json", "package-lock.json", ".npmrc")
_INSTALL_S = 300.0
_OLDEST_NODE = 20

_DKIM = """\
[sign]
enabled = true
selector = bench
domain = example.test
headers = From, Sender, Reply-To, Subject, Date, Message-ID, To, Cc, MIME-Version, Content-Type
[canon]
body = relaxed
[verify]
enabled = false
"""


def _cache() -> Path:
    top = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    content = b"".join((_HERE / name).read_bytes() for name in _MANIFEST)
    return top / "everpost-bench" / f"haraka-{hashlib.sha256(content).hexdigest()[:12]}"


def install() -> Path:
    """The folder of the installed package, made with `npm ci` if it is not there yet."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is missing: apt-get install nodejs npm")
    node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    if int(node.strip().lstrip("v").split(".")[0]) < _OLDEST_NODE:
        raise RuntimeError(f"Haraka needs Node.js {_OLDEST_NODE} or later; this is {node.strip()}")
    folder = _cache()
    package = folder / "node_modules/Haraka"
    if not (folder / ".complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in _MANIFEST:
            shutil.copy(_HERE / name, folder / name)
        options = ("--omit=dev", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund")
        finish(["npm", "ci", *options], seconds=_INSTALL_S, cwd=folder)
        (folder / ".complete").touch()
    return package


def version() -> str:
    """`Haraka 3.3.4 on Node.js v24.1.0`."""
    package = install()
    ask = f"require('{package}/package.json').version + ' on Node.js ' + process.version"
    found, _ = finish(["node", "-p", ask], seconds=30)
    return f"Haraka {found.strip()}"


def _lay_out(package: Path, top: Path, port: int, sink: int, *, signed: bool) -> None:
    config = top / "config"
    shutil.copytree(package / "config", config)  # Haraka's defaults
    (top / "plugins").mkdir()
    (top / "queue").mkdir()
    shutil.copy(_HERE / "relay_to_sink.js", top / "plugins/relay_to_sink.js")
    files = {
        "smtp.ini": f"listen=127.0.0.1:{port}\nnodes=cpus\n",
        "outbound.ini": "concurrency_max=100\nenable_tls=false\nlocal_mx_ok=true\n",
        "log.ini": "[main]\nlevel=warn\nformat=default\n",
        "plugins": "relay_to_sink\n" + ("dkim\n" if signed else ""),
        "sink_port": f"{sink}\n",
        "me": "bench.test\n",
        "host_list": "bench.test\n",
    }
    for name, text in files.items():
        (config / name).write_text(text)
    if signed:
        (config / "dkim.ini").write_text(_DKIM)
        key = str(config / "dkim.private.key")
        finish(["openssl", "genrsa", "-traditional", "-out", key, "2048"], seconds=60)


@contextlib.contextmanager
def _haraka(package: Path, top: Path, port: int) -> Iterator[int]:
    """Haraka with the configuration in `top`: the process id of its master."""
    with (top / "log").open("w") as log:
        process = subprocess.Popen(
            ["node", str(package / "bin/haraka"), "-c", str(top)],
            stdout=log,
            stderr=log,
            cwd=package.parent.parent,
            env={
                **os.environ,
                "NODE_CLUSTER_SCHED_POLICY": "none",
                "UV_THREADPOOL_SIZE": "16",
            },
        )
    try:
        await_port(port)
        yield process.pid
    except RuntimeError as error:
        last = (top / "log").read_text().strip().splitlines()[-1:]
        raise RuntimeError(f"{error} (Haraka's last line: {''.join(last) or 'none'})") from error
    finally:
        end(process, 10)


def run(work: Work) -> Figures:
    """Accept and deliver what `work` says; one destination, signed with RSA if not unsigned."""
    package = install()
    top = Path(tempfile.mkdtemp(prefix="bench-haraka-"))
    try:
        with FarEnd() as sink:
            port = free_port()
            _lay_out(package, top, port, sink.port, signed=work.signing == "rsa")
            with _haraka(package, top, port) as master:
                return drive(work, port=port, roots=[master], sink=sink)
    finally:
        shutil.rmtree(top, ignore_errors=True)
