"""How nodes know each other: HMAC-SHA256 (RFC 2104) under the secret that they share. Pure.

A request bears its time, the SHA-256 of its body and a signature over both, so that a stranger's
body is never read. The answer is signed, too: whoever answers without the secret (a proxy, another
service at that address) has no copy."""

import hashlib
import hmac
from pathlib import Path

__all__ = [
    "DIGEST",
    "LEAST_SECRET",
    "PATH",
    "SIGNATURE",
    "TIME",
    "WINDOW_MS",
    "SecretError",
    "is_fresh",
    "is_stored_by",
    "read_secret",
    "same",
    "sign",
    "signed_answer",
]

PATH = b"/journal/entries"
TIME, DIGEST, SIGNATURE = b"everpost-time", b"everpost-digest", b"everpost-signature"
WINDOW_MS = 60_000
LEAST_SECRET = 32


class SecretError(OSError):
    """The file with the nodes' secret is missing, too short, or readable by others."""


def read_secret(path: Path) -> bytes:
    """The secret in a file, without the white space around it. Raises SecretError."""
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SecretError(f"cluster.secret_file: {path}: {error.strerror}") from error
    if mode & 0o077:
        raise SecretError(f"cluster.secret_file: {path} is readable by others; make it mode 0600")
    if len(secret) < LEAST_SECRET:
        raise SecretError(f"cluster.secret_file: {path} holds fewer than {LEAST_SECRET} characters")
    return secret


def same(a: bytes, b: bytes) -> bool:
    """In a time that tells nothing about where they differ."""
    return hmac.compare_digest(a, b)


def sign(secret: bytes, time: bytes, digest: bytes) -> bytes:
    """A request's signature, in hexadecimal, as the two headers before it."""
    said = b"\n".join((b"everpost journal 1", b"PUT", PATH, time, digest))
    return hmac.new(secret, said, hashlib.sha256).hexdigest().encode()


def is_fresh(time: bytes, now: int) -> bool:
    """Whether a request's time (milliseconds since 1970) is within a minute of `now`."""
    if not time.isdigit() or len(time) > 15:
        return False
    return abs(int(time) - now) <= WINDOW_MS


def signed_answer(secret: bytes, name: str, signature: bytes) -> bytes:
    """What a node of that name answers to a request with that signature, once it is flushed."""
    return _proof(secret, name.encode(), signature) + b" " + name.encode()


def is_stored_by(secret: bytes, answer: bytes, signature: bytes, *, but: str) -> bool:
    """Whether an answer says that the entries are on another node's disk than that of `but`."""
    proof, _, name = answer.partition(b" ")
    return name != but.encode() and same(proof, _proof(secret, name, signature))


def _proof(secret: bytes, name: bytes, signature: bytes) -> bytes:
    said = b"\n".join((b"everpost journal stored 1", name, signature))
    return hmac.new(secret, said, hashlib.sha256).hexdigest().encode()
