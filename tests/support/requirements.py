"""Makes sure that the programs the tests drive are there: real servers, outside verifiers.

As root on Debian it installs what is missing and says so, starting no service; elsewhere it prints
the exact command and fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = {
    "dovecot-imapd": "/usr/lib/dovecot/imap",
    "postfix": "/usr/sbin/postfix",
    "opendkim": "/usr/sbin/opendkim",
    "opendkim-tools": "/usr/sbin/opendkim-testmsg",
    "knot": "/usr/sbin/knotd",
    "strace": "/usr/bin/strace",
    "systemd": "/usr/bin/systemd-analyze",
    "curl": "/usr/bin/curl",
    "e2fsprogs": "/usr/sbin/mkfs.ext4",
    "etcd-client": "/usr/bin/etcdctl",
    "etcd-server": "/usr/bin/etcd",
    "haproxy": "/usr/sbin/haproxy",
    "iproute2": "/usr/sbin/ip",
    "libemail-mime-perl": "/usr/share/perl5/Email/MIME.pm",
    "libfaketime": "/usr/lib/*/faketime/libfaketime.so.1",
    "nftables": "/usr/sbin/nft",
    "nginx-light": "/usr/sbin/nginx",
    "openssl": "/usr/bin/openssl",
    "pgbouncer": "/usr/sbin/pgbouncer",
    "postgresql": "/usr/lib/postgresql/*/bin/postgres",
    "mount": "/usr/bin/mount",
    "unbound": "/usr/sbin/unbound",
    "util-linux": "/usr/bin/prlimit",
}
"""Debian package -> a program (or file) that it brings, as a pattern."""


def missing() -> list[str]:
    """The packages whose program is not here."""
    return [
        package
        for package, program in PACKAGES.items()
        if not any(Path("/").glob(program[1:])) and shutil.which(Path(program).name) is None
    ]


def command(packages: list[str]) -> list[str]:
    return ["apt-get", "install", "--yes", "--no-install-recommends", *packages]


def install(packages: list[str]) -> int:
    """Install with a policy that lets no package start its service."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with tempfile.TemporaryDirectory() as folder:
        # invoke-rc.d asks policy-rc.d whether it may start a service: 101 says no.
        policy = Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            subprocess.run(["apt-get", "update"], env=environment, cwd=folder, check=False)
            return subprocess.run(
                command(packages), env=environment, cwd=folder, check=False
            ).returncode
        finally:
            if ours:
                policy.unlink()


def main() -> int:
    packages = missing()
    if not packages:
        return 0
    line = " ".join(command(packages))
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.stderr.write(
            f"The tests need programs that are missing here: {', '.join(packages)}.\n"
            f"Install them and run the tests again, on Debian: sudo {line}\n"
        )
        return 1
    sys.stderr.write(f"Installing Debian packages for the tests: {', '.join(packages)}\n")
    code = install(packages)
    still = missing()
    if code != 0 or still:
        sys.stderr.write(f"Could not install {', '.join(still or packages)}; try: {line}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
