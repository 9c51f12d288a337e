"""The sample file and the reference page are the settings, not a memory of them."""

import re
import tomllib
from pathlib import Path

from everpost.config import Settings, describe, load, reference, sample
from everpost.config.describe import literal


def test_the_sample_file_changes_nothing_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "sample.toml"
    file.write_text(sample(), encoding="utf-8")
    assert load(file, {}, {}) == Settings()


def test_the_sample_file_is_true_when_every_line_is_switched_on(tmp_path: Path) -> None:
    switched = re.sub(r"^#(?=[a-z_]+ = )", "", sample(), flags=re.MULTILINE)
    file = tmp_path / "sample.toml"
    file.write_text(switched, encoding="utf-8")
    assert load(file, {}, {}) == Settings()
    assert sum(len(section) for section in tomllib.loads(switched).values()) == len(describe())


def test_every_setting_is_explained() -> None:
    for item in describe():
        assert item.help.endswith("."), item
        assert item.form, item
        assert item.variable.startswith("EVERPOST_"), item
        assert f"`{item.name}`" in reference()
    assert all(len(line) <= 100 for line in sample().splitlines())


def test_sizes_are_readable() -> None:
    shown = {f"{item.section}.{item.name}": item.shown for item in describe()}
    assert shown["http.body_bytes"] == "55 MiB"
    assert shown["intake.part_bytes"] == "64 KiB"
    assert shown["dispatch.window"] == ""


def test_a_text_with_quotes_stays_toml() -> None:
    hard = 'a"b\\c\nd\u202e'
    assert tomllib.loads("x = " + literal(hard)) == {"x": hard}
