"""The address of the database, as people may mistype it."""

import pytest

from everpost.store.interface import StoreError
from everpost.store.postgres.connection import Address


@pytest.mark.parametrize(
    "url",
    [
        "postgress://mail:hunter2@db.test/mail",
        "postgresql://mail:hunter2@[db.test/mail",
        "host=db.test password='hunter2",
    ],
)
def test_an_address_that_cannot_be_read_does_not_tell_its_password(url: str) -> None:
    """The error goes to the log, and to whoever starts the service."""
    with pytest.raises(StoreError, match="cannot be read") as raised:
        Address(url, deadline_s=10.0)
    told: BaseException | None = raised.value
    while told is not None:
        assert "hunter2" not in str(told)
        told = told.__cause__
