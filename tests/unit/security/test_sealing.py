"""What is sealed stays readable to its owner alone, and to nobody in another place."""

import base64
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost import telemetry
from everpost.security import sealing
from everpost.security.sealing import (
    ENVIRONMENT,
    MasterKey,
    MasterKeyError,
    NoDataKey,
    Sealer,
    UnknownKey,
    Unsealable,
)
from everpost.telemetry import alarm

MASTER = MasterKey(bytes(range(32)))


def _sealer(*projects: int, master: MasterKey = MASTER) -> Sealer:
    sealer = Sealer(master)
    for key_id, project in enumerate(projects, 1):
        sealer.add(key_id, project, sealer.new_data_key(project))
    return sealer


def _load(path: Path, *, create: bool = False, given: str | None = None) -> MasterKey:
    environment = {} if given is None else {ENVIRONMENT: given}
    return MasterKey.load(path, environment=environment, create=create, randomness=os.urandom)


# --- sealing ----------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.binary(max_size=3000), st.binary(max_size=40))
def test_what_was_sealed_comes_back(plaintext: bytes, context: bytes) -> None:
    sealer = _sealer(1)
    key_id, sealed = sealer.seal(1, plaintext, context=context)
    assert sealer.unseal(key_id, sealed, context=context) == plaintext


def test_row_moved_to_another_place_does_not_open() -> None:
    sealer = _sealer(1)
    key_id, sealed = sealer.seal(1, b"password", context=b"row 1")
    with pytest.raises(Unsealable):
        sealer.unseal(key_id, sealed, context=b"row 2")


def test_context_cannot_be_shifted_into_the_project() -> None:
    """Project and key id are of fixed length, so no context continues them ambiguously."""
    sealer = _sealer(1, 2)
    one, sealed = sealer.seal(1, b"x", context=b"")
    with pytest.raises(Unsealable):
        sealer.unseal(one + 1, sealed, context=b"")


@pytest.mark.parametrize("position", [0, 8, 20, -1])
def test_flipped_bit_is_noticed(position: int) -> None:
    sealer = _sealer(1)
    key_id, sealed = sealer.seal(1, b"a body of some length", context=b"c")
    changed = bytearray(sealed)
    changed[position] ^= 1
    with pytest.raises(Unsealable):
        sealer.unseal(key_id, bytes(changed), context=b"c")


@pytest.mark.parametrize("length", [0, 7, 8, 20, 35, 36, 40])
def test_row_cut_short_is_noticed(length: int) -> None:
    sealer = _sealer(1)
    key_id, sealed = sealer.seal(1, b"a body of some length", context=b"c")
    with pytest.raises(Unsealable):
        sealer.unseal(key_id, sealed[:length], context=b"c")


def test_same_text_never_looks_the_same_and_is_never_seen() -> None:
    sealer = _sealer(1)
    sealed = {sealer.seal(1, b"canary-7f3a", context=b"c")[1] for _ in range(200)}
    assert len(sealed) == 200
    assert not any(b"canary" in blob for blob in sealed)


def test_nonces_of_one_salt_end_long_before_they_could_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NIST SP 800-38D §8.3: 2^32 random nonces a key. Here 5 seals a salt."""
    assert sealing._SEALS_PER_SALT < 1 << 32
    monkeypatch.setattr(sealing, "_SEALS_PER_SALT", 5)
    sealer = _sealer(1)
    rows = [sealer.seal(1, b"x", context=b"") for _ in range(12)]
    assert len({sealed[:8] for _, sealed in rows}) == 3
    assert all(sealer.unseal(key_id, sealed, context=b"") == b"x" for key_id, sealed in rows)


def test_threads_that_seal_at_once_never_mix_their_salts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows with one thread's salt and another's key would be lost. Threads change places often
    here, and every third seal takes a salt."""
    monkeypatch.setattr(sealing, "_SEALS_PER_SALT", 3)
    sealer = _sealer(1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda n: sealer.seal(1, b"%d" % n, context=b""), range(2000)))
    finally:
        sys.setswitchinterval(interval)
    assert [sealer.unseal(k, sealed, context=b"") for k, sealed in rows] == [
        b"%d" % n for n in range(2000)
    ]


def test_two_processes_never_seal_under_one_key() -> None:
    wrapped = Sealer(MASTER).new_data_key(1)
    sealers = [Sealer(MASTER, [(1, 1, wrapped)]) for _ in range(2)]
    (_, a), (_, b) = (sealer.seal(1, b"x", context=b"") for sealer in sealers)
    assert a[:8] != b[:8]
    assert sealers[0].unseal(1, b, context=b"") == sealers[1].unseal(1, a, context=b"") == b"x"


def test_salts_of_a_forged_store_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_SALTS_REMEMBERED", 4)
    sealer = _sealer(1)
    _, sealed = sealer.seal(1, b"x", context=b"")
    for n in range(20):
        with pytest.raises(Unsealable):
            sealer.unseal(1, n.to_bytes(8, "big") + sealed[8:], context=b"")
    assert len(sealer._keys[1].opened) <= 4
    assert sealer.unseal(1, sealed, context=b"") == b"x"


# --- data keys --------------------------------------------------------------------------------


def test_new_data_key_seals_and_the_old_one_still_opens() -> None:
    sealer = _sealer(1)
    old_id, old = sealer.seal(1, b"old", context=b"")
    sealer.add(9, 1, sealer.new_data_key(1))
    sealer.add(5, 1, sealer.new_data_key(1))  # came later, yet an older id: not for sealing
    new_id, new = sealer.seal(1, b"new", context=b"")
    assert (old_id, new_id) == (1, 9)
    assert sealer.unseal(old_id, old, context=b"") == b"old"
    assert sealer.unseal(new_id, new, context=b"") == b"new"


def test_key_of_one_project_does_not_open_as_anothers() -> None:
    wrapped = Sealer(MASTER).new_data_key(1)
    with pytest.raises(Unsealable):
        Sealer(MASTER).add(1, 2, wrapped)


def test_project_without_data_key_is_said_so() -> None:
    sealer = _sealer(1)
    assert sealer.has(1)
    assert not sealer.has(2)
    with pytest.raises(NoDataKey):
        sealer.seal(2, b"x", context=b"")


def test_key_made_by_another_process_is_told_apart_from_tampering() -> None:
    with pytest.raises(UnknownKey):
        _sealer(1).unseal(2, bytes(60), context=b"")


def test_start_with_the_wrong_master_key_is_refused() -> None:
    wrapped = Sealer(MASTER).new_data_key(1)
    with pytest.raises(MasterKeyError):
        Sealer(MasterKey(bytes(32)), [(1, 1, wrapped)])


def test_one_rotten_data_key_alarms_and_leaves_the_others_working() -> None:
    maker = Sealer(MASTER)
    good, rotten = maker.new_data_key(1), maker.new_data_key(2)
    alarm("data_key_unreadable").clear()
    sealer = Sealer(MASTER, [(1, 1, good), (2, 2, rotten[:-1] + b"\0"), (3, 2, b"\x02" + good)])
    assert alarm("data_key_unreadable").raised
    alarm("data_key_unreadable").clear()
    assert sealer.has(1)
    assert not sealer.has(2)


def test_part_hash_joins_equal_parts_of_one_project_and_day_only() -> None:
    sealer = _sealer(1, 2)
    same = sealer.part_hash(1, 20_000, b"part")
    assert sealer.part_hash(1, 20_000, b"part") == same
    others = {
        sealer.part_hash(1, 20_001, b"part"),
        sealer.part_hash(2, 20_000, b"part"),
        sealer.part_hash(1, 20_000, b"part."),
        _sealer(1).part_hash(1, 20_000, b"part"),  # another data key: an outsider cannot compute it
    }
    assert len(others | {same}) == 5
    assert len(same) == 32


# --- master key -------------------------------------------------------------------------------


def test_made_key_is_the_same_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    made = _load(path, create=True)
    assert _load(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert base64.b64decode(path.read_bytes()) == made.secret
    assert [p.name for p in tmp_path.iterdir()] == ["master.key"]


def test_missing_key_is_never_made_silently(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match="does not exist"):
        _load(tmp_path / "master.key")
    assert not list(tmp_path.iterdir())


def test_many_threads_that_create_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: _load(tmp_path / "k", create=True), range(16)))
    assert len(keys) == 1


def test_two_processes_that_create_at_once_agree(tmp_path: Path) -> None:
    program = (
        "import sys,os,pathlib; from everpost.security import MasterKey; sys.stdin.read(1);"
        "print(MasterKey.load(pathlib.Path(sys.argv[1]), environment={}, create=True).secret.hex())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "k")]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("g")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].strip() for process in both]
    assert answers[0] == answers[1] != ""


def test_crash_while_creating_leaves_no_half_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "master.key"
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(MasterKeyError, match="No space left"):
        _load(path, create=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610])
def test_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    _load(path, create=True)
    path.chmod(mode)
    with pytest.raises(MasterKeyError, match="chmod 600"):
        _load(path)


@pytest.mark.parametrize(
    "text", [b"", b"short", b"!" * 44, base64.b64encode(bytes(31)), b"\xff\xfe", b"A" * 5000]
)
def test_file_that_holds_no_key_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(MasterKeyError, match="32 bytes"):
        _load(path, create=True)


def test_directory_or_missing_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("folder", "pipe"):
        with pytest.raises(MasterKeyError, match="regular"):
            _load(tmp_path / name, create=True)
    with pytest.raises(MasterKeyError):
        _load(tmp_path / "none" / "master.key", create=True)


def test_key_from_the_environment_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(telemetry, "event", lambda name, **_: seen.append(name))
    text = base64.b64encode(MASTER.secret).decode()
    assert _load(tmp_path / "k", create=True, given=text + "\n") == MASTER
    assert seen == ["master_key.from_environment"]
    assert not list(tmp_path.iterdir())


def test_environment_and_file_that_differ_are_refused(tmp_path: Path) -> None:
    """Taking either would make the other's half of the store unreadable."""
    path = tmp_path / "k"
    made = _load(path, create=True)
    with pytest.raises(MasterKeyError, match="different"):
        _load(path, given=base64.b64encode(MASTER.secret).decode())
    assert _load(path, given=base64.b64encode(made.secret).decode()) == made


def test_environment_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match=ENVIRONMENT):
        _load(tmp_path / "k", create=True, given="hunter2")


def test_secret_is_not_in_what_is_printed() -> None:
    assert repr(MASTER) == str(MASTER) == "<MasterKey>"
    with pytest.raises(MasterKeyError):
        MasterKey(b"short")


def test_subkeys_of_different_purposes_differ() -> None:
    assert MASTER.subkey(b"a") != MASTER.subkey(b"b")
    assert len(MASTER.subkey(b"a")) == 32
