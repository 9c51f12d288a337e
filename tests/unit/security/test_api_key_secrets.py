"""API keys: their form, their hashes, and what is derived from them."""

import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.model.errors import Invalid
from everpost.security import (
    MasterKey,
    derived_secret,
    describe,
    equal,
    new_api_key,
    token_hash,
)

CHOSEN = "a-token-of-the-operator's-own"


@settings(max_examples=100)
@given(st.binary(min_size=32, max_size=32))
def test_made_key_is_described_as_what_it_is(random: bytes) -> None:
    made = new_api_key(lambda n: random[:n])
    assert re.fullmatch(r"ep_[0-9a-hjkmnp-tv-z]{12}_[A-Za-z0-9_-]{43}", made.token)
    assert describe(made.token) == (made.public_id, made.hash)
    assert made.hash == hashlib.sha256(made.token.encode()).digest()


def test_two_keys_differ_in_every_part() -> None:
    a, b = new_api_key(), new_api_key()
    assert a.token != b.token
    assert a.public_id != b.public_id
    assert a.hash != b.hash


def test_key_does_not_print_its_token() -> None:
    made = new_api_key()
    assert made.token[16:] not in repr(made)


def test_chosen_token_has_the_same_public_id_on_every_node() -> None:
    public_id, hash_ = describe(CHOSEN)
    assert describe(CHOSEN) == (public_id, hash_)
    assert re.fullmatch(r"[0-9a-z]{12}", public_id)
    assert describe(CHOSEN + "x")[0] != public_id


@pytest.mark.parametrize(
    "token", ["", "x" * 23, "x" * 513, "a token of words and spaces", "tökën" * 9, "x" * 30 + "\n"]
)
def test_weak_or_unprintable_token_is_refused(token: str) -> None:
    with pytest.raises(Invalid) as refused:
        describe(token)
    assert refused.value.field == "token"
    assert not token or token not in refused.value.message


@given(st.text(alphabet=st.characters(), max_size=30))
def test_any_text_has_a_hash(token: str) -> None:
    assert len(token_hash(token)) == 32


def test_lone_surrogate_does_not_hash_like_what_it_could_be_replaced_by() -> None:
    assert len({token_hash("\ud800"), token_hash("?"), token_hash("\ufffd")}) == 3


def test_equal_compares_all_bytes() -> None:
    assert equal(b"same", b"same")
    assert not equal(b"same", b"samf")
    assert not equal(b"same", b"sam")


def test_vendor_secret_depends_on_master_key_and_id_and_reveals_neither() -> None:
    a, b = MasterKey(bytes(32)), MasterKey(bytes(31) + b"\1")
    secrets = {derived_secret(a, "x"), derived_secret(a, "y"), derived_secret(b, "x")}
    assert len(secrets) == 3
    assert derived_secret(a, "x") == derived_secret(a, "x")
    assert all(len(secret) == 44 for secret in secrets)
