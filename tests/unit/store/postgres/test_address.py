"""Where the database is."""

import pytest

from everpost.store.interface import StoreError
from everpost.store.postgres.connection import Address


@pytest.mark.parametrize("url", ["postgres//u:sesame@h/db", "postgresql://u:sesame@h/db?x"])
def test_an_address_that_cannot_be_read_is_told_with_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="cannot be read") as told:
        Address(url, deadline_s=1.0)
    assert "sesame" not in f"{told.value!r} {told.value.__cause__!r}"
