"""Columns of values as the server reads them."""

from typing import Any

import pytest

from everpost.store.postgres.arrays import Rows

BOTH = Rows(b"SELECT %s, * FROM unnest(%s::bytea[], %s::bigint[], %s::text[])")


def test_rows_become_columns() -> None:
    assert BOTH.width == 3
    columns = BOTH.columns([b"a", 1, "x", b"b", -2, "é"])
    assert [len(column) for column in columns] == [20 + 2 * 5, 20 + 2 * 12, 20 + 5 + 6]
    head = (1).to_bytes(4, "big") + bytes(4)
    assert all(column.startswith(head) for column in columns)
    assert columns[1].endswith((-2).to_bytes(8, "big", signed=True))
    assert columns[2].endswith("é".encode())


@pytest.mark.parametrize("value", [None])
def test_what_is_missing_is_null(value: Any) -> None:
    for column in BOTH.columns([value, value, value]):
        assert bytes(column[4:8]) == (1).to_bytes(4, "big")
        assert column.endswith((-1).to_bytes(4, "big", signed=True))
    mixed = BOTH.columns([b"a", 1, "x", None, None, None])
    assert [column[4:8] for column in mixed] == [(1).to_bytes(4, "big")] * 3


def test_no_rows_are_empty_arrays() -> None:
    assert [column[:4] for column in BOTH.columns([])] == [bytes(4)] * 3


def test_a_query_without_columns_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no array"):
        Rows(b"SELECT %s")
