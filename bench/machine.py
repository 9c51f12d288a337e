"""What a table must say beside its figures: machine, interpreter, versions, file system."""

import contextlib
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from bench import haraka

__all__ = ["describe"]


def describe(cases: Iterable[str]) -> dict[str, str]:
    """Facts in words. `cases`: names of the rows to be measured; only their peers are asked."""
    names = set(cases)
    facts = {
        "machine": f"{os.cpu_count()} cores, {_processor()}, {_memory_gib():.0f} GiB",
        "system": f"{_os_name()}, Linux {platform.release()}",
        "file system": _file_system(tempfile.gettempdir()),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "interpreter": interpreter(),
        "Everpost": _first(["git", "-C", str(Path(__file__).parent), "describe", "--always",
                            "--dirty"]) or "not from git",
    }  # fmt: skip
    if any(name.startswith("postfix") for name in names):
        facts["Postfix"] = _first(["postconf", "-d", "-h", "mail_version"]) or "missing"
    if any(name.startswith("postfix-dkim") for name in names):
        facts["OpenDKIM"] = _first(["opendkim", "-V"]) or "missing"
    if any(name.startswith("haraka") for name in names):
        try:
            facts["Haraka"] = haraka.version()
        except (RuntimeError, OSError) as error:
            facts["Haraka"] = f"missing: {error}"
    return facts


def interpreter() -> str:
    """`CPython 3.11.7, built without profile-guided optimisation; pure Python 44 ms`."""
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {_build()}; "
        f"a loop of pure Python takes {_loop_ms():.0f} ms"
    )


def _build() -> str:
    words = " ".join(
        str(sysconfig.get_config_var(name) or "")
        for name in ("CONFIG_ARGS", "PY_CORE_CFLAGS", "CFLAGS_NODIST", "PY_CFLAGS_NODIST")
    )
    if "--enable-optimizations" in words or "-fprofile-use" in words:
        return "built with profile-guided optimisation"
    if sys.base_prefix == "/usr" and Path("/etc/debian_version").exists():
        # debian/rules runs the profile-opt target by itself; no flag of it is left in sysconfig
        return "Debian's build (with profile-guided optimisation)"
    return "built without profile-guided optimisation"


def _loop_ms() -> float:
    """The best of five: what this build makes of the same bytecode, to compare builds by."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        seen: dict[int, str] = {}
        total = 0
        for n in range(300_000):
            seen[n & 255] = str(n)
            total += len(seen[n & 255])
            if total % 3 == 0:
                total ^= n
        best = min(best, time.process_time() - began)
    return best * 1000


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _os_name() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return "Linux"


def _file_system(folder: str) -> str:
    """Everybody queues here. On tmpfs a sync costs nothing, so that the table would flatter."""
    name = _first(["stat", "-f", "-c", "%T", folder]) or "unknown"
    warning = ", WHERE A SYNC COSTS NOTHING: set TMPDIR to a folder on a disk"
    return f"{name} ({folder}{warning if name in {'tmpfs', 'ramfs'} else ''})"


def _first(command: list[str]) -> str:
    """The first line that a program prints, "" if there is no such program."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return ((done.stdout or done.stderr).strip().splitlines() or [""])[0].strip()
    return ""
