"""F88: a configuration is read again while the server runs. One with an error, one that asks for what
takes a restart, and one that a process does not start with leave the old one in force, say why, and
raise an alarm; a good one replaces every process and is in force.

Invariants: I16.
"""

from collections.abc import Iterator

import pytest

from everpost.recovery.children import Children, read_children
from tests.support.house import House


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    # What the environment says wins over the file: this one is to be changed there.
    folder = tmp_path_factory.mktemp("reload")
    with House(folder / "d", settings={"EVERPOST_NODE_START_S": "20"}, processes=0) as house:
        yield house


def _children(house: House) -> Children:
    facts = read_children(house.data / "run" / "children.json")
    assert facts is not None
    return facts


def _pids(house: House) -> dict[str, int]:
    return {child.name: child.pid for child in _children(house).children}


def _write(house: House, text: str) -> None:
    (house.data / "everpost.toml").write_text(text, encoding="utf-8")
