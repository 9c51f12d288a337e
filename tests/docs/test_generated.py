"""The reference pages say what the code says."""

import pytest

from docs.generate import PAGES, REFERENCE, page


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_reference_page_that_drifted_from_the_code(name: str) -> None:
    file = REFERENCE / f"{name}.md"
    assert file.is_file(), f"{file} is missing: run `make docs`"
    assert file.read_text(encoding="utf-8") == page(name), f"{file} is stale: run `make docs`"


def test_a_page_that_nobody_writes_any_more() -> None:
    assert {file.stem for file in REFERENCE.glob("*.md")} == set(PAGES)
