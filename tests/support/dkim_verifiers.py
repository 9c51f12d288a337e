"""Two outside verifiers of DKIM signatures: dkimpy and OpenDKIM's `opendkim-testmsg`.

`records` maps the name of a TXT record, without a final dot, to its text. Both functions judge
every signature of the message by itself and raise AssertionError on the first that is bad; both
return the number of signatures, which is at least one.
"""

import base64
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import dkim
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["signatures_of", "verify_dkimpy", "verify_opendkim"]

_SIGNATURE = re.compile(rb"(?im)^dkim-signature:.*\r\n(?:[ \t].*\r\n)*")


def signatures_of(message: bytes) -> list[bytes]:
    """The complete DKIM-Signature fields, topmost first."""
    return _SIGNATURE.findall(message.partition(b"\r\n\r\n")[0] + b"\r\n")


def verify_dkimpy(message: bytes, records: Mapping[str, str]) -> int:
    """Every signature by dkimpy's `DKIM.verify`."""
    _give_dkimpy_ed25519()
    known = {name.lower(): text for name, text in records.items()}

    def lookup(name: bytes | str, timeout: int = 5) -> bytes | None:
        text = (name if isinstance(name, str) else name.decode()).rstrip(".").lower()
        return known[text].encode() if text in known else None

    count = len(signatures_of(message))
    assert count, "the message is not signed"
    for index in range(count):
        try:
            good = dkim.DKIM(message).verify(idx=index, dnsfunc=lookup)
        except dkim.DKIMException as error:
            raise AssertionError(f"dkimpy: {error}") from error
        assert good, f"dkimpy refuses signature {index}: {signatures_of(message)[index]!r}"
    return count


def verify_opendkim(message: bytes, records: Mapping[str, str]) -> int:
    """Every signature by `opendkim-testmsg`, each in a copy of the message that has no other one
    (libopendkim is content with the first good one).

    It asks the system's resolver, so it runs in a network of its own (see `txt_namespace`). Where
    the kernel refuses that, `opendkim -t` judges: the same library, with the keys from a file.
    """
    signatures = signatures_of(message)
    assert signatures, "the message is not signed"
    headers, _, body = message.partition(b"\r\n\r\n")
    bare = _SIGNATURE.sub(b"", headers + b"\r\n") + b"\r\n" + body
    judge = _testmsg if _namespaces_allowed() else _filter
    with tempfile.TemporaryDirectory() as folder:
        for signature in signatures:
            complaint = judge(signature + bare, records, Path(folder))
            assert not complaint, f"OpenDKIM: {complaint}: {signature!r}"
    return len(signatures)


def _testmsg(message: bytes, records: Mapping[str, str], folder: Path) -> str:
    zone = folder / "records.json"
    zone.write_text(json.dumps(dict(records)))
    script = str(Path(__file__).with_name("txt_namespace.py"))
    program = _program("opendkim-testmsg", "opendkim-tools")
    command = [*_UNSHARE, sys.executable, script, str(zone), program, "-t", str(folder)]
    done = subprocess.run(command, input=message, capture_output=True, timeout=60)
    if done.returncode == 0:
        return ""
    return f"status {done.returncode} {(done.stdout + done.stderr).decode(errors='replace')}"


def _filter(message: bytes, records: Mapping[str, str], folder: Path) -> str:
    keys, settings, letter = (folder / name for name in ("keys", "opendkim.conf", "message"))
    keys.write_text("".join(f"{name} {text}\n" for name, text in records.items()))
    settings.write_text(f"Mode v\nSyslog no\nTestPublicKeys {keys}\n")
    letter.write_bytes(message)
    command = [_program("opendkim", "opendkim"), "-x", str(settings), "-t", str(letter)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode(errors="replace")
    good = done.returncode == 0 and re.search(r"verification \(s=.*\) succeeded", said)
    return "" if good else said or f"status {done.returncode}"


_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--"]


@functools.cache
def _namespaces_allowed() -> bool:
    unshare = _program("unshare", "util-linux")
    probe = [unshare, *_UNSHARE[1:], "mount", "--bind", "/etc/passwd", "/etc/passwd"]
    return subprocess.run(probe, capture_output=True, timeout=60).returncode == 0


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, f"{name} is missing: install Debian package {package}"
    return found


class _BadSignature(Exception):
    """What dkimpy expects PyNaCl to raise."""


class _VerifyKey:
    """PyNaCl's class as dkimpy uses it, on `cryptography`."""

    def __init__(self, key: bytes, encoder: object) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key))

    def verify(self, message: bytes, signature: bytes) -> None:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise _BadSignature from None


def _give_dkimpy_ed25519() -> None:
    """dkimpy takes the curve from PyNaCl, which is not among our packages; everything else of
    RFC 8463 it does itself."""
    if not hasattr(dkim, "nacl"):
        dkim.nacl = SimpleNamespace(
            signing=SimpleNamespace(VerifyKey=_VerifyKey),
            encoding=SimpleNamespace(Base64Encoder=None),
            exceptions=SimpleNamespace(BadSignatureError=_BadSignature, ValueError=ValueError),
        )
