"""Which process holds which connection, as the kernel tells."""

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["owners"]


def owners(pids: Iterable[int], *, port: int) -> dict[int, int]:
    """Of connections to `port` on 127.0.0.1: their own port, and the process that has them."""
    mine = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, inode = fields[1], fields[2], fields[9]
        if int(remote.partition(":")[2], 16) == port:
            mine[f"socket:[{inode}]"] = int(local.partition(":")[2], 16)
    found = {}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = os.readlink(link)
            except OSError:  # closed meanwhile
                continue
            if name in mine:
                found[mine[name]] = pid
    return found
