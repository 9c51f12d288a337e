"""Sealing at rest: AES-256-GCM under a data key per project, wrapped by one master key.

    master key (0600 file) --wraps--> data key of a project --derives--> sealing key --seals--> row

A row keeps the id of its data key. Destroying a data key shreds all that was sealed under it.

Nonces are random 96 bits, for which NIST SP 800-38D §8.3 allows 2^32 seals a key: three weeks at
2,000 a second. So no data key seals by itself. Each Sealer derives a sealing key from it and a
random salt of its own, counts what that one sealed, and takes a new salt long before the limit;
processes never share a count, and no clock or operator has to remember a rotation.

    sealed  = salt (8) ‖ nonce (12) ‖ ciphertext ‖ tag (16), bound to project, key id and context
    wrapped = 0x01 ‖ nonce (12) ‖ sealed data key (32) ‖ tag (16), bound to the project

Errors:
    SealingError
    ├── MasterKeyError   no master key, not a safe one, or not the one of this store
    ├── NoDataKey        the project has no data key to seal with
    └── Unsealable       wrong key, wrong context, or changed bytes
        └── UnknownKey   this sealer holds no key of that id: another process may have made it
                         meanwhile (read the data keys again), or it was destroyed
"""

import base64
import binascii
import hashlib
import hmac
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from everpost import telemetry

__all__ = [
    "ENVIRONMENT",
    "MasterKey",
    "MasterKeyError",
    "NoDataKey",
    "Sealer",
    "SealingError",
    "UnknownKey",
    "Unsealable",
]

ENVIRONMENT = "EVERPOST_MASTER_KEY"
"""Environment variable that may hold the master key as base64; a file is better."""

_KEY = 32
_SALT = 8
_NONCE = 12
_TAG = 16
_WRAPPED_FORM = b"\x01"
_SEALS_PER_SALT = 1 << 31
_SALTS_REMEMBERED = 4096

Randomness = Callable[[int], bytes]


class SealingError(Exception):
    """Something could not be sealed or unsealed."""


class MasterKeyError(SealingError):
    """The master key is missing, unsafe to use, or does not fit the stored data keys."""


class NoDataKey(SealingError):
    """A project without a data key: make one with `new_data_key` and `add` it."""


class Unsealable(SealingError):
    """The bytes were not sealed with this key for this place, or they were changed."""


class UnknownKey(Unsealable):
    """No data key of that id is held."""


# --- master key -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class MasterKey:
    """The one secret that everything sealed in a store hangs on: 32 random bytes.

    Without it sealed content is lost for good; keep a copy apart from the backups of the store.
    """

    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != _KEY:
            raise MasterKeyError(f"a master key has {_KEY} bytes, not {len(self.secret)}")

    def __repr__(self) -> str:
        return "<MasterKey>"

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        environment: Mapping[str, str],
        create: bool,
        randomness: Randomness = os.urandom,
    ) -> "MasterKey":
        """The key in `path`, or in the environment; made first when `create` and there is none.

        A new file is on the disk, whole, before anyone can see it; of several processes that create
        at once, all get the key of the first. Raises MasterKeyError, also when the file is readable
        by others, or differs from the environment's key.
        """
        stored = _read(path)
        given = environment.get(ENVIRONMENT)
        if given is not None:
            secret = _decode(given, ENVIRONMENT)
            if stored is not None and not hmac.compare_digest(stored, secret):
                raise MasterKeyError(f"{ENVIRONMENT} and {path} hold different keys; remove one")
            telemetry.event("master_key.from_environment", level="warning", variable=ENVIRONMENT)
            return cls(secret)
        if stored is None and create:
            _create(path, randomness)
            stored = _read(path)
        if stored is None:
            raise MasterKeyError(f"no master key: {path} does not exist")
        return cls(stored)

    def subkey(self, purpose: bytes) -> bytes:
        """32 bytes for one purpose: HKDF-Expand (RFC 5869 §2.3) in its one-block form. Extracting
        first is not needed, since the key is uniformly random (RFC 5869 §3.3)."""
        return hmac.digest(self.secret, purpose + b"\x01", "sha256")


def _decode(text: str, where: str) -> bytes:
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != _KEY:
        raise MasterKeyError(f"{where} does not hold {_KEY} bytes as base64")
    return secret


def _read(path: Path) -> bytes | None:
    try:
        # a pipe in the file's place would block without O_NONBLOCK
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise MasterKeyError(f"{path} is not a regular file")
            if mode & 0o077:
                raise MasterKeyError(
                    f"{path} is open to others (mode {stat.S_IMODE(mode):04o}): chmod 600 it"
                )
            text = os.read(fd, 1024)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MasterKeyError(f"{path} cannot be read: {error.strerror}") from error
    return _decode(text.decode("latin-1"), str(path))


def _create(path: Path, randomness: Randomness) -> None:
    """Write a new key beside `path` and link it there: `link` fails where a file is already, so
    one of several processes wins, and a reader never sees half a key."""
    draft = path.with_name(f".{path.name}.{randomness(8).hex()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                os.fchmod(fd, 0o600)  # whatever the umask took away
                file.write(base64.b64encode(randomness(_KEY)) + b"\n")
                file.flush()
                os.fsync(fd)
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
        finally:
            os.unlink(draft)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise MasterKeyError(f"{path} cannot be made: {error.strerror}") from error


# --- data keys ------------------------------------------------------------------------------------


class _DataKey:
    """One unwrapped data key: what this process seals with, and all salts that it has opened."""

    __slots__ = ("aad", "count", "current", "id", "opened", "parts", "project", "secret")

    def __init__(self, key_id: int, project: int, secret: bytes) -> None:
        self.id = key_id
        self.project = project
        self.secret = secret
        self.aad = project.to_bytes(8, "big") + key_id.to_bytes(8, "big")
        self.parts = hmac.digest(secret, b"everpost part hash\x01", "sha256")
        self.opened: dict[bytes, AESGCM] = {}
        self.count = _SEALS_PER_SALT  # so that the first seal takes a salt
        # Salt and cipher are one value: a thread that read them apart could mix two salts.
        self.current: tuple[bytes, AESGCM] | None = None

    def take_salt(self, salt: bytes) -> tuple[bytes, AESGCM]:
        current = self.current = (salt, self.sealing(salt))
        self.count = 0
        return current

    def sealing(self, salt: bytes) -> AESGCM:
        """The cipher of one salt; salts are as many as processes there were."""
        cipher = self.opened.get(salt)
        if cipher is None:
            cipher = AESGCM(hmac.digest(self.secret, b"everpost seal\x00" + salt, "sha256"))
            if len(self.opened) >= _SALTS_REMEMBERED:
                self.opened.clear()
            self.opened[salt] = cipher
        return cipher


class Sealer:
    """Seals and unseals for all projects. Safe to use from several threads and after a fork: a
    nonce is asked of the kernel for every seal.

    `wrapped` are (key id, project, wrapped data key) as the store has them. A key that does not
    unwrap raises an alarm and is left out; when none does, the master key is a wrong one and
    MasterKeyError is raised.
    """

    def __init__(
        self,
        master: MasterKey,
        wrapped: Iterable[tuple[int, int, bytes]] = (),
        *,
        randomness: Randomness = os.urandom,
    ) -> None:
        self._wrapping = AESGCM(master.subkey(b"everpost wrap data keys"))
        self._randomness = randomness
        self._keys: dict[int, _DataKey] = {}
        self._newest: dict[int, _DataKey] = {}
        refused = 0
        for key_id, project, blob in wrapped:
            try:
                self.add(key_id, project, blob)
            except Unsealable:
                refused += 1
                telemetry.alarm("data_key_unreadable").raise_(key_id=key_id, project=project)
        if refused and not self._keys:
            raise MasterKeyError("this master key opens none of the store's data keys")

    def new_data_key(self, project: int) -> bytes:
        """A fresh data key, wrapped. The caller stores it, then calls `add` with its id."""
        nonce = self._randomness(_NONCE)
        secret = self._randomness(_KEY)
        return _WRAPPED_FORM + nonce + self._wrapping.encrypt(nonce, secret, _wrap_aad(project))

    def add(self, key_id: int, project: int, wrapped: bytes) -> None:
        """Hold one more data key; a project seals with the one of the highest id. Adding a held
        key again does nothing. Raises Unsealable."""
        if key_id in self._keys:
            return
        if wrapped[:1] != _WRAPPED_FORM:
            raise Unsealable(f"data key {key_id} is wrapped in a form not known here")
        nonce, rest = wrapped[1 : 1 + _NONCE], wrapped[1 + _NONCE :]
        try:
            secret = self._wrapping.decrypt(nonce, rest, _wrap_aad(project))
        except (InvalidTag, ValueError) as error:
            raise Unsealable(f"data key {key_id} does not open with this master key") from error
        key = self._keys[key_id] = _DataKey(key_id, project, secret)
        newest = self._newest.get(project)
        if newest is None or newest.id < key_id:
            self._newest[project] = key

    def has(self, project: int) -> bool:
        """Whether `seal` can work for this project."""
        return project in self._newest

    def seal(self, project: int, plaintext: bytes, *, context: bytes) -> tuple[int, bytes]:
        """(key id, sealed bytes). `context` names the place, for example the row's id: only the
        same context unseals. Raises NoDataKey."""
        key = self._of(project)
        current = key.current
        if current is None or key.count >= _SEALS_PER_SALT:
            current = key.take_salt(self._randomness(_SALT))
        key.count += 1
        salt, cipher = current
        nonce = self._randomness(_NONCE)
        return key.id, salt + nonce + cipher.encrypt(nonce, plaintext, key.aad + context)

    def unseal(self, key_id: int, sealed: bytes, *, context: bytes) -> bytes:
        """What was sealed in this context. Raises Unsealable."""
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownKey(f"data key {key_id} is not held")
        if len(sealed) < _SALT + _NONCE + _TAG:
            raise Unsealable("sealed bytes are cut short")
        cipher = key.sealing(sealed[:_SALT])
        body = memoryview(sealed)[_SALT + _NONCE :]
        try:
            return cipher.decrypt(sealed[_SALT : _SALT + _NONCE], body, key.aad + context)
        except InvalidTag as error:
            raise Unsealable(f"sealed bytes do not open with data key {key_id}") from error

    def part_hash(self, project: int, day: int, content: bytes) -> bytes:
        """32 bytes that name a large part within one project and one day (days since 1970), and
        tell nothing about it to whoever lacks the key. Raises NoDataKey."""
        key, salt = self._of(project).parts, day.to_bytes(16, "big")
        return hashlib.blake2b(content, digest_size=32, key=key, salt=salt).digest()

    def _of(self, project: int) -> _DataKey:
        key = self._newest.get(project)
        if key is None:
            raise NoDataKey(f"project {project} has no data key")
        return key


def _wrap_aad(project: int) -> bytes:
    return b"everpost data key\x00" + project.to_bytes(8, "big")
