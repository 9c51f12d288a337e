"""A host whose power can be cut: it has a disk (ext4 on a loop device) and a boot id of its own.

In the instant of the cut everything that was not flushed is gone, as on a real machine; disks that
lie about their flushes are not modelled. Needs root.
"""

import fcntl
import os
import signal
import struct
import subprocess
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.house import House
from tests.support.waiting import wait_until

__all__ = ["Host"]

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = struct.pack("I", 2)


class Host:
    """`with Host(tmp_path) as host, House(host.data, prefix=host.prefix) as house: …`.

    What must survive the cut (logs, what a far end took) lies elsewhere.
    """

    def __init__(self, folder: Path, *, mib: int = 768) -> None:
        self._mib = mib
        self._image = folder / "disk.img"
        self._mount = folder / "disk"
        self._boot = folder / "boot_id"
        self.data = self._mount / "d"
        self.cuts = 0

    @property
    def prefix(self) -> Sequence[str]:
        """For `House`: the server sees this host's boot id in the place of the kernel's."""
        bind = f"mount --bind '{self._boot}' /proc/sys/kernel/random/boot_id && exec \"$@\""
        return ("unshare", "--mount", "--", "sh", "-c", bind, "sh")

    def __enter__(self) -> "Host":
        self._mount.mkdir(parents=True)
        _run("truncate", "--size", f"{self._mib}M", str(self._image))
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._on()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        subprocess.run(["umount", str(self._mount)], capture_output=True, check=False)
        self._image.unlink(missing_ok=True)

    def cut(self, house: House) -> None:
        """Cut the power, and bring the host up again; the server is not started.

        Its processes stand still from just before: none goes on for a moment after the cut, as on
        a real machine. ext4 answers a flush that is under way in that moment with success, because
        jbd2 counts a transaction that it gave up as complete; nobody may hear that answer.
        """
        pids = (house.pid, *house.children())
        _signal(pids, signal.SIGSTOP)
        file = os.open(self._mount, os.O_RDONLY)
        try:
            fcntl.ioctl(file, _EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH)
        except OSError as error:
            raise AssertionError(
                f"this kernel cannot shut an ext4 file system down ({error}): no power cut here"
            ) from error
        finally:
            os.close(file)
        _signal(pids, signal.SIGKILL)
        house.kill()
        # A process whose first thread is gone may still be ending its others.
        wait_until(self._off, seconds=10, what="the disk to be let go")
        self._on()
        self.cuts += 1

    def _off(self) -> bool:
        done = subprocess.run(["umount", str(self._mount)], capture_output=True, check=False)
        return done.returncode == 0

    def _on(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self._mount))
        self._boot.write_text(f"{uuid.uuid4()}\n")


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()} (needs root)"
