"""A disk that can lose its power (ext4 on a loop device), and a host with one and a boot id of its
own.

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
from typing import Any

from tests.support.house import House
from tests.support.waiting import wait_until

__all__ = ["Disk", "Host"]

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = struct.pack("I", 2)


class Disk:
    """`with Disk(tmp_path) as disk: … disk.path …`. What must survive a cut lies elsewhere."""

    def __init__(self, folder: Path, *, mib: int = 768) -> None:
        self._mib = mib
        self._image = folder / "disk.img"
        self._shared = folder / "host"
        self.path = self._shared / "disk"

    def __enter__(self) -> "Disk":
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        self._shared.mkdir(parents=True)
        _run("mount", "--bind", str(self._shared), str(self._shared))
        _run("mount", "--make-shared", str(self._shared))
        self.path.mkdir(exist_ok=True)
        _run("truncate", "--size", f"{self._mib}M", str(self._image))
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._on()

    def __exit__(self, *_: object) -> None:
        """Nothing stays mounted, and no loop device, also where a process that a failed test has
        left still uses it: the kernel lets go when that ends."""
        for each in (self.path, self._shared):
            done = subprocess.run(["umount", str(each)], capture_output=True, check=False)
            if done.returncode:
                subprocess.run(["umount", "--lazy", str(each)], capture_output=True, check=False)
        self._image.unlink(missing_ok=True)

    def go_dark(self) -> None:
        """The instant of the cut: what was not flushed is gone, and nothing more is written."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(file, _EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH)
        except OSError as error:
            raise AssertionError(
                f"this kernel cannot shut an ext4 file system down ({error}): no power cut here"
            ) from error
        finally:
            os.close(file)

    def turn_read_only(self) -> None:
        """What ext4 does of itself when its disk fails (`errors=remount-ro`): each write is EROFS
        from now on, and there is no way back while it is mounted."""
        _run("mount", "-o", "remount,errors=remount-ro,abort", str(self.path))

    def mount_again(self, *options: str) -> None:
        """When all who used it have ended: as after a repair, or read-only (`ro`)."""
        wait_until(self._off, seconds=10, what="the disk to be let go")
        if not self._let_go():
            self._leave_the_image()
        self._on(*options)

    def _off(self) -> bool:
        done = subprocess.run(["umount", str(self.path)], capture_output=True, check=False)
        return done.returncode == 0

    def _leave_the_image(self) -> None:
        """Go on with a copy: whoever made a mount namespace meanwhile, be it another test, has the
        dead file system for as long as that lives."""
        fresh = self._image.with_name(f"{uuid.uuid4()}.img")
        _run("cp", "--sparse=always", str(self._image), str(fresh))
        self._image.unlink()
        self._image = fresh

    def _let_go(self) -> bool:
        """Whether no mount namespace has it any more: mounted again, it would still be dead."""
        found = subprocess.run(
            ["losetup", "--associated", str(self._image)], capture_output=True, check=True
        )
        return not found.stdout

    def _on(self, *options: str) -> None:
        _run("mount", "-o", ",".join(("loop", *options)), str(self._image), str(self.path))


class Host:
    """`with Host(tmp_path) as host, host.house() as house: …`.

    What must survive the cut (logs, what a far end took) lies elsewhere.
    """

    def __init__(self, folder: Path, *, mib: int = 768) -> None:
        self._disk = Disk(folder, mib=mib)
        self._boot = folder / "boot_id"
        self.data = self._disk.path / "d"
        self.log = folder / "server.log"
        self.cuts = 0

    def house(self, **options: Any) -> House:
        """A server on this host; its log lies outside."""
        return House(self.data, prefix=self.prefix, log=self.log, **options)

    @property
    def prefix(self) -> Sequence[str]:
        """For `House`: the server sees this host's boot id in the place of the kernel's. What is
        unmounted outside is unmounted in its name space, too: else a server of one host would keep
        the dead disks of all others."""
        bind = f"mount --bind '{self._boot}' /proc/sys/kernel/random/boot_id && exec \"$@\""
        return ("unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", bind, "sh")

    def __enter__(self) -> "Host":
        self._disk.__enter__()
        self._boots()
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.__exit__()

    def cut(self, house: House) -> None:
        """Cut the power, and bring the host up again; the server is not started.

        The processes are stopped first: a host without power computes nothing, whereas on an ext4
        that was shut down pages can still be read, and are zeros where they had not been written.
        """
        pids = (house.pid, *house.children())
        _signal(pids, signal.SIGSTOP)
        self._disk.go_dark()
        _signal(pids, signal.SIGKILL)  # one that was just starting does not yet die with its parent
        house.kill()
        # A process whose first thread is gone may still be ending its others.
        self.cuts += 1
        self.mount_again()

    def turn_read_only(self) -> None:
        """As `Disk.turn_read_only`."""
        self._disk.turn_read_only()

    def mount_again(self, *options: str) -> None:
        """Of a host whose server has ended: as after a repair, or read-only (`ro`)."""
        self._disk.mount_again(*options)
        self._boots()

    def _boots(self) -> None:
        self._boot.write_text(f"{uuid.uuid4()}\n")


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()} (needs root)"
