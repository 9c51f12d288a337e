"""Which settings a reload may change."""

from dataclasses import replace
from pathlib import Path

import pytest

from everpost.config import PostgresSettings, Settings, masked, unchangeable


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


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:sesame@h:5000,i/db?x=1", "postgresql://u:***@h:5000,i/db?x=1"),
        ("postgres//u:sesame@h/db", "postgres//u:***@h/db"),
        ("postgresql://u:se@sa/me@h/db", "postgresql://u:***@h/db"),
        (
            "postgresql://h/db?user=u&password=sesame&x=1",
            "postgresql://h/db?user=u&password=***&x=1",
        ),
        (r"host=h password = 'ses\'ame x' user=u", "host=h password = *** user=u"),
        ("postgresql://everpost@db:5000,db2:5000/db", "postgresql://everpost@db:5000,db2:5000/db"),
        ("https://api.example.com:8443/x", "https://api.example.com:8443/x"),
    ],
)
def test_a_password_in_an_address_is_shown(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_a_reload_changes_the_databases_password() -> None:
    """It is refused, and told without either."""
    now, wanted = (
        replace(Settings(), postgres=PostgresSettings(url=f"postgresql://u:{word}@h/db"))
        for word in ("sesame", "simsim")
    )
    (said,) = unchangeable(now, wanted)
    assert said.startswith("postgres.url")
    assert "sesame" not in said
    assert "simsim" not in said
