"""Which settings a reload may change."""

from dataclasses import replace
from pathlib import Path

from everpost.config import Settings, unchangeable


def test_a_setting_that_takes_a_restart_changes_by_reload() -> None:
    now = Settings()
    wanted = replace(
        now,
        node=replace(now.node, data=Path("elsewhere")),
        http=replace(now.http, listen="127.0.0.1:1", admin_listen="127.0.0.1:2"),
    )
    said = unchangeable(now, wanted)
    assert [line.split()[0] for line in said] == ["node.data", "http.listen", "http.admin_listen"]
    assert "'127.0.0.1:1'" in said[1]
    assert f"'{now.http.listen}'" in said[1]


def test_a_setting_that_may_change_takes_a_restart() -> None:
    now = Settings()
    assert unchangeable(now, now) == ()
    assert unchangeable(now, replace(now, node=replace(now.node, processes=7))) == ()


def test_the_same_directory_by_another_name_is_another() -> None:
    now = Settings()
    same = replace(now, node=replace(now.node, data=now.node.data.absolute()))
    assert unchangeable(now, same) == ()
