from pathlib import Path

import pytest

from everpost.store.queries import CHUNK, Rows, load, sizes
from everpost.store.sqlite import (
    accepting,
    adopting,
    auditing,
    catalog,
    claiming,
    controls,
    moves,
    quarantine,
    reading,
    recovery,
    repairs,
    settling,
    sharing,
    taking,
)
from everpost.store.sqlite.connection import SQL


def test_a_file_is_cut_at_its_names(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text(
        "-- For readers.\n\n-- name: one\nSELECT 1; -- why\n\n-- about two\n-- name: two\n"
        "-- inside\nSELECT a,\n  'x -- y'\nFROM t;\n"
    )
    (tmp_path / "b.sql").write_text("-- name: three\nSELECT 3\n")
    found = load(tmp_path)
    assert found["two"] == "SELECT a, 'x -- y' FROM t"
    assert found["three"] == "SELECT 3"
    assert found["one"].startswith("SELECT 1")


def test_a_name_that_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- name: one\nSELECT 1;\n")
    (tmp_path / "b.sql").write_text("-- name: one\nSELECT 2;\n")
    with pytest.raises(ValueError, match="one"):
        load(tmp_path)


def test_a_query_that_nobody_uses_is_noticed() -> None:
    used = "".join(
        Path(str(module.__file__)).read_text()
        for module in (
            accepting,
            adopting,
            auditing,
            catalog,
            claiming,
            controls,
            moves,
            quarantine,
            reading,
            recovery,
            repairs,
            settling,
            sharing,
            taking,
        )
    )
    folder = Path(str(catalog.__file__)).parent
    used += (folder / "work.py").read_text() + (folder / "writer.py").read_text()
    unused = [name for name in SQL if f'"{name}"' not in used]
    assert [n for n in unused if not n.startswith(("put_", "drop_"))] == []


def test_every_number_of_rows_is_cut_into_few_statements_of_few_sizes() -> None:
    seen = set()
    for n in range(1, 3 * CHUNK):
        cut = list(sizes(n))
        assert sum(cut) == n
        assert len(cut) <= n // CHUNK + 2
        seen.update(cut)
    assert len(seen) <= 15
    assert list(sizes(0)) == []


def test_rows_are_repeated_in_place() -> None:
    rows = Rows("INSERT INTO t (a, b) VALUES /*rows*/ (?, ?) ON CONFLICT DO NOTHING")
    assert rows.width == 2
    assert rows.text(1) == "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT DO NOTHING"
    assert (
        rows.text(3) == "INSERT INTO t (a, b) VALUES (?, ?), (?, ?), (?, ?) ON CONFLICT DO NOTHING"
    )
    with pytest.raises(ValueError, match="mark"):
        Rows("SELECT 1")
