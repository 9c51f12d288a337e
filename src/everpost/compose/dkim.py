"""DKIM signatures (RFC 6376, RFC 8463): relaxed/relaxed, oversigned, one field per key.

Signing is a pure function and safe to call from several threads; `cryptography` releases the GIL
for the costly part.
"""

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from everpost.compose.errors import UnreadableKey
from everpost.compose.headers import Field
from everpost.compose.message import Composed

__all__ = [
    "MINIMUM_LIFETIME",
    "SIGNED_HEADERS",
    "Algorithm",
    "SigningKey",
    "dns_record",
    "generate_key",
    "load_key",
    "sign",
]

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

SIGNED_HEADERS = (
    "From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version",
    "Content-Type", "Content-Transfer-Encoding", "List-Unsubscribe", "List-Unsubscribe-Post",
)  # fmt: skip
"""Signed, each once more often than it occurs, so that none can be added or doubled (S34)."""

MINIMUM_LIFETIME = 7 * 86_400
"""Seconds. A message may be retried for five days and be read later."""

_RSA_BITS = range(1024, 4097)  # RFC 8301 §3.2: verifiers take 1024 to 4096 bits
_FOLD = 74

_DOMAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_-]{1,63}){0,126}")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_WSP_RUN = re.compile(rb"[ \t]+")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that is loaded and checked. `domain` and `selector` are the d= and s= of signatures."""

    domain: str
    selector: str
    algorithm: Algorithm
    private: RSAPrivateKey | Ed25519PrivateKey = field(repr=False)


def load_key(der_pkcs8: bytes, *, domain: str, selector: str) -> SigningKey:
    """An RSA key of 1024 to 4096 bits or an Ed25519 key from PKCS#8 DER. Raises UnreadableKey."""
    for name in (domain, selector):
        if len(name) > 253 or not _DOMAIN.fullmatch(name):
            raise UnreadableKey("a DKIM key's domain or selector is malformed")
    try:
        private = load_der_private_key(der_pkcs8, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnreadableKey("a DKIM key is not readable as PKCS#8 DER") from error
    match private:
        case Ed25519PrivateKey():
            return SigningKey(domain, selector, "ed25519-sha256", private)
        case RSAPrivateKey() if private.key_size in _RSA_BITS:
            return SigningKey(domain, selector, "rsa-sha256", private)
        case RSAPrivateKey():
            raise UnreadableKey(f"an RSA key of {private.key_size} bits cannot sign DKIM")
        case _:
            raise UnreadableKey("a DKIM key is neither RSA nor Ed25519")


def generate_key(algorithm: Algorithm, bits: int = 2048) -> tuple[bytes, str]:
    """(private key as PKCS#8 DER, public key as the DNS record's p=). `bits` is for RSA.

    p= is a SubjectPublicKeyInfo for RSA (RFC 6376 §3.6.1) and the bare 32 octets for Ed25519
    (RFC 8463 §4.2), both in base64.
    """
    private: RSAPrivateKey | Ed25519PrivateKey
    if algorithm == "ed25519-sha256":
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
    else:
        if bits not in _RSA_BITS:
            raise ValueError("an RSA key for DKIM has 1024 to 4096 bits")
        private = generate_private_key(65_537, bits)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return der, _base64(public)


def dns_record(selector: str, domain: str, algorithm: str, public: str) -> tuple[str, str]:
    """(name, value) of the TXT record that publishes a key (RFC 6376 §3.6.2). The value may exceed
    255 octets; a zone file then needs it split into several strings."""
    kind = "ed25519" if algorithm == "ed25519-sha256" else "rsa"
    return f"{selector}._domainkey.{domain}", f"v=DKIM1; k={kind}; p={public}"


def sign(
    composed: Composed,
    keys: Sequence[SigningKey],
    *,
    at: int,
    lifetime: int = MINIMUM_LIFETIME,
    headers: Sequence[str] | None = None,
) -> bytes:
    """One complete DKIM-Signature field per key, in the keys' order, to stand before the headers.

    `at` (t=) is seconds since 1970, `lifetime` seconds until x=. `headers` replaces the names in
    SIGNED_HEADERS; From is always signed (RFC 6376 §5.4). Raises ValueError for no keys, for a
    lifetime below MINIMUM_LIFETIME, and for malformed names: a bug in our own code.
    """
    if not keys:
        raise ValueError("what should be signed never leaves unsigned: no keys were given")
    if lifetime < MINIMUM_LIFETIME:
        raise ValueError("a signature must outlive every retry")
    names, signed = _signed_fields(composed.headers, SIGNED_HEADERS if headers is None else headers)
    body_hash = _base64(sha256(relaxed_body(composed.body)).digest())
    listed = _folded_names(names)
    fields = []
    for key in keys:
        unsigned = (
            f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed;\r\n"
            f" d={key.domain};\r\n"
            f" s={key.selector};\r\n"
            f" t={at}; x={at + lifetime};\r\n"
            f" h={listed};\r\n"
            f" bh={body_hash};\r\n"
            " b="
        ).encode()
        # RFC 6376 §3.7: our own field comes last, with an empty b= and without its line end
        signature = _signature(key, signed + relaxed_field(unsigned)[:-2])
        lines = [signature[i : i + _FOLD] for i in range(0, len(signature), _FOLD)]
        fields.append(unsigned + "\r\n ".join(lines).encode() + b"\r\n")
    return b"".join(fields)


def _signature(key: SigningKey, data: bytes) -> str:
    if isinstance(key.private, RSAPrivateKey):
        return _base64(key.private.sign(data, PKCS1v15(), SHA256()))
    return _base64(key.private.sign(sha256(data).digest()))  # RFC 8463 §3: the hash is signed


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _signed_fields(fields: Sequence[Field], wanted: Sequence[str]) -> tuple[list[str], bytes]:
    """(the names for h=, what they stand for in relaxed form). Each name is listed once more than
    it occurs; the instances of a name count from the last one up (RFC 6376 §5.4.2)."""
    present: dict[bytes, list[bytes]] = {}
    for field_name, raw in fields:
        present.setdefault(field_name.lower(), []).append(raw)
    names: list[str] = []
    data: list[bytes] = []
    seen = set()
    for name in ("From", *wanted):
        lower = name.lower().encode()
        if lower in seen:
            continue
        if not _FIELD_NAME.fullmatch(name) or ";" in name:
            raise ValueError("a name to be signed is malformed")
        seen.add(lower)
        names.append(name)
        for raw in reversed(present.get(lower, ())):
            names.append(name)
            data.append(relaxed_field(raw))
    return names, b"".join(data)


def _folded_names(names: Sequence[str]) -> str:
    """`A:B:C`, folded after a colon (RFC 6376 §3.5 allows it)."""
    lines, line = [], names[0]
    room = _FOLD - 4
    for name in names[1:]:
        line += ":"
        if len(line) + len(name) > room:
            lines.append(line)
            line = ""
        line += name
    lines.append(line)
    return "\r\n  ".join(lines)


def relaxed_field(raw: bytes) -> bytes:
    """A complete field in relaxed form (RFC 6376 §3.4.2), with its line end."""
    name, _, value = raw.partition(b":")
    if b"\x0b" in value or b"\x0c" in value:  # these are not WSP, though bytes.split() splits there
        unfolded = value.replace(b"\r\n", b"")
        value = _WSP_RUN.sub(b" ", unfolded).strip(b" ")
    else:
        value = b" ".join(value.split())
    return b"%b:%b\r\n" % (name.rstrip(b" \t").lower(), value)


def relaxed_body(body: bytes) -> bytes:
    """A body in relaxed form (RFC 6376 §3.4.4): runs of white space are one space, none at line
    ends, no empty lines at the end. Passes over the body in C, and only where needed."""
    if b"\t" in body:
        body = body.replace(b"\t", b" ")
    while b"  " in body:
        body = body.replace(b"  ", b" ")
    if b" \r\n" in body:
        body = body.replace(b" \r\n", b"\r\n")
    if body.endswith(b" "):
        body = body[:-1]
    if not body.endswith(b"\r\n"):
        return body + b"\r\n" if body else b""
    text = body.rstrip(b"\r\n")
    end = len(text)
    if body.count(b"\r\n", end) * 2 != len(body) - end:  # a bare CR or LF among them stays
        end = len(body)
        while body.endswith(b"\r\n", 0, end):
            end -= 2
    if end == 0:
        return b""
    return body if end + 2 == len(body) else body[:end] + b"\r\n"
