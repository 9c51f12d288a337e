"""Which settings a reload may change."""

from dataclasses import replace
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hunter2@db/mail", "postgresql://me:…@db/mail"),
        ("postgres://me:hunt/er@2@db:5432/mail", "postgres://me:…@db:5432/mail"),
        ("postgresql://me@db/mail?password=hunter2&sslmode=require", "&sslmode=require"),
        ("host=db password = hunter2 user=me", "user=me"),
        (r"host=db password='hunter\'2 hunter2' user=me", "user=me"),
        ("host=db password='hunter2", "host=db"),
        ("postgresql://me@db/mail", "postgresql://me@db/mail"),
    ],
)
def test_a_database_that_changes_by_reload_does_not_tell_its_password(url: str, shown: str) -> None:
    """Why a reload was refused is in the log, in an alarm and in `everpost status`."""
    now = Settings()
    there = replace(now, postgres=replace(now.postgres, url=url))
    for said in (unchangeable(now, there), unchangeable(there, now)):
        assert len(said) == 1
        assert shown in said[0]
        assert "hunt" not in said[0]


def test_a_setting_that_may_change_takes_a_restart() -> None:
    now = Settings()
    assert unchangeable(now, now) == ()
    assert unchangeable(now, replace(now, node=replace(now.node, processes=7))) == ()


def test_the_same_directory_by_another_name_is_another() -> None:
    now = Settings()
    same = replace(now, node=replace(now.node, data=now.node.data.absolute()))
    assert unchangeable(now, same) == ()
