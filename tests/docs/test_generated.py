"""The reference pages say what the code says."""

import pytest

from docs.generate import PAGES, REFERENCE, page
from docs.hostile import TESTS, functions_in
from tests.support.hostile import PLACES


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_reference_page_that_drifted_from_the_code(name: str) -> None:
    file = REFERENCE / f"{name}.md"
    assert file.is_file(), f"{file} is missing: run `make docs`"
    assert file.read_text(encoding="utf-8") == page(name), f"{file} is stale: run `make docs`"


def test_a_page_that_nobody_writes_any_more() -> None:
    assert {file.stem for file in REFERENCE.glob("*.md")} == set(PAGES)


def test_a_hostile_input_that_no_test_runs() -> None:
    """The tests that the page names exist, and every place has some."""
    assert set(TESTS) >= set(PLACES)
    for name in {name for names in TESTS.values() for name in names}:
        path, _, function = name.partition("::")
        assert function in functions_in(path), name
