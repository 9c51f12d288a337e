"""The supervisor's file: whole at any moment, and no reader stumbles over another version's."""

from pathlib import Path

import pytest

from everpost.recovery.children import (
    ChildFacts,
    Children,
    Reload,
    ReloadState,
    read_children,
    write_children,
)

FACTS = Children(
    supervisor=7,
    children=(
        ChildFacts("api", pid=8, ready=True),
        ChildFacts("dispatch-1", restarts=4, short_lives=3, loops=True, last_exit=-9),
    ),
    reload=Reload(2, ReloadState.REFUSED, ("dispatch.window is wrong",), 1_000),
    file="/etc/everpost.toml",
    options={"http.listen": "127.0.0.1:0", "node.processes": 2},
)


def test_what_is_written_is_read_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "children.json"
    assert read_children(path) is None
    write_children(path, FACTS)
    assert read_children(path) == FACTS
    write_children(path, Children(7, ()))
    assert read_children(path) == Children(7, ())
    assert [each.name for each in tmp_path.iterdir()] == ["children.json"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"supervisor": "x", "children": []}'])
def test_a_file_of_another_version_ends_its_reader(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "children.json"
    path.write_bytes(text)
    assert read_children(path) is None


def test_a_file_that_cannot_be_read_is_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_children(tmp_path)


@pytest.mark.parametrize(
    ("state", "over", "refused"),
    [
        (ReloadState.READING, False, False),
        (ReloadState.ROLLING, False, False),
        (ReloadState.APPLIED, True, False),
        (ReloadState.REFUSED, True, True),
        (ReloadState.FAILED, True, True),
    ],
)
def test_a_reload_that_failed_counts_as_applied(
    state: ReloadState, over: bool, refused: bool
) -> None:
    assert state.over is over
    assert Reload(1, state).refused is refused
