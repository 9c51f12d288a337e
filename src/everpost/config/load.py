"""Reads settings: defaults, then the file, then the environment, then options; the last one wins.

ConfigError   every wrong key of every source, each with where it was found and what is expected
"""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields
from difflib import SequenceMatcher
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

from everpost.config.setting import META, Meta
from everpost.config.settings import Settings

__all__ = [
    "FILE_NAME",
    "ConfigError",
    "Key",
    "Loaded",
    "environment_name",
    "expected",
    "keys",
    "load",
    "trace",
]

FILE_NAME = "everpost.toml"
"""Looked for in the data directory when no file is named."""

PREFIX = "EVERPOST_"

_INJECTED = re.compile(r"\w*_(PORT|SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP)\w*)")
"""What Kubernetes puts into containers beside a service called `everpost…`; not meant for us."""


class ConfigError(Exception):
    """Settings that cannot be used. `problems` has one sentence a wrong key."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: `section.field`, its type and what it promises."""

    section: str
    name: str
    type: type
    meta: Meta
    default: Any

    @property
    def dotted(self) -> str:
        return f"{self.section}.{self.name}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with, for each `section.field` that is not at its default, where it came from."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None


def environment_name(key: Key) -> str:
    """`EVERPOST_HTTP_LISTEN` for `http.listen`."""
    return f"{PREFIX}{key.section}_{key.name}".upper()


def keys() -> Iterator[Key]:
    """Every setting, in the order of the dataclasses."""
    for section, section_type in get_type_hints(Settings).items():
        hints = get_type_hints(section_type)
        for item in fields(section_type):
            yield Key(section, item.name, hints[item.name], _meta(item), item.default)


def _meta(item: "Field[Any]") -> Meta:
    meta = item.metadata[META]
    assert isinstance(meta, Meta)
    return meta


def load(
    path: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object]
) -> Settings:
    """The settings of a node. Raises ConfigError.

    `path` None looks for `everpost.toml` in the data directory. `overrides` are options of the
    command line by dotted name (`{"http.listen": "127.0.0.1:0"}`); None means not given.
    """
    return trace(path, environment, overrides).settings


def trace(
    path: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object]
) -> Loaded:
    """Like `load`, and says where each value came from."""
    given = {name: value for name, value in overrides.items() if value is not None}
    known = {key.dotted: key for key in keys()}
    file = path or _default_file(environment, given)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    sources = (
        *([(str(file), _from_file(file, known, problems))] if file else []),
        ("environment", _from_environment(environment, known, problems)),
        ("option", {known[name]: value for name, value in given.items()}),
    )
    for source, found in sources:
        for key, raw in found.items():
            value = _convert(key, raw, from_text=source == "environment")
            if isinstance(value, _Wrong):
                name = environment_name(key) if source == "environment" else key.dotted
                problems.append(f"{source}: {name}: expected {value.expected}; found {_show(raw)}")
            else:
                values[key.dotted], origins[key.dotted] = value, source
    if problems:
        raise ConfigError(tuple(problems))
    settings = _build(values)
    problems.extend(_contradictions(settings))
    if problems:
        raise ConfigError(tuple(problems))
    return Loaded(settings, origins, file)


def _build(values: Mapping[str, Any]) -> Settings:
    sections: dict[str, dict[str, Any]] = {}
    for dotted, value in values.items():
        section, _, name = dotted.partition(".")
        sections.setdefault(section, {})[name] = value
    types = get_type_hints(Settings)
    return Settings(**{section: types[section](**named) for section, named in sections.items()})


def _contradictions(settings: Settings) -> Iterator[str]:
    """Values that are each possible but not together."""
    s = settings
    if s.dispatch.lease_s <= s.delivery.dot_s:
        yield (
            f"dispatch.lease_s ({s.dispatch.lease_s:g}) must be longer than delivery.dot_s "
            f"({s.delivery.dot_s:g}): a claim may not end while the final dot is unanswered"
        )
    if s.dispatch.batch > s.dispatch.window:
        yield (
            f"dispatch.batch ({s.dispatch.batch}) must not be larger than dispatch.window "
            f"({s.dispatch.window})"
        )
    if s.limits.body_bytes < s.http.body_bytes:
        yield (
            f"limits.body_bytes ({s.limits.body_bytes}) must hold one body of http.body_bytes "
            f"({s.http.body_bytes})"
        )
    if s.http.body_bytes < s.intake.message_bytes:
        yield (
            f"http.body_bytes ({s.http.body_bytes}) must hold a message of intake.message_bytes "
            f"({s.intake.message_bytes})"
        )
    if s.http.listen == s.http.admin_listen and not s.http.listen.endswith(":0"):
        yield f"http.listen and http.admin_listen must differ; both are {s.http.listen}"
    if s.canary.address and not (s.canary.mailbox and s.canary.username):
        yield "canary.address needs canary.mailbox and canary.username: who else is to look?"


# --- sources --------------------------------------------------------------------------------------


def _default_file(environment: Mapping[str, str], given: Mapping[str, object]) -> Path | None:
    data = given.get("node.data") or environment.get(f"{PREFIX}NODE_DATA")
    directory = Path(str(data)) if data else Settings().node.data
    file = directory / FILE_NAME
    return file if file.is_file() else None


def _from_file(file: Path, known: Mapping[str, Key], problems: list[str]) -> dict[Key, object]:
    try:
        with file.open("rb") as stream:
            tree = tomllib.load(stream)
    except OSError as error:
        raise ConfigError((f"{file}: cannot be read: {error.strerror}",)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError((f"{file}: is not TOML: {error}",)) from error
    sections = {key.section for key in known.values()}
    found: dict[Key, object] = {}
    for section, content in tree.items():
        if section not in sections:
            problems.append(f"{file}: {_unknown_top(section, content, known)}")
        elif not isinstance(content, dict):
            problems.append(
                f"{file}: {section}: expected a section [{section}]; found {_show(content)}"
            )
        else:
            for name, value in content.items():
                key = known.get(f"{section}.{name}")
                if key is None:
                    problems.append(f"{file}: {_unknown(f'{section}.{name}', known)}")
                else:
                    found[key] = value
    return found


def _from_environment(
    environment: Mapping[str, str], known: Mapping[str, Key], problems: list[str]
) -> dict[Key, object]:
    by_name = {environment_name(key): key for key in known.values()}
    openings = tuple({f"{PREFIX}{key.section}_".upper() for key in known.values()})
    found: dict[Key, object] = {}
    for name in sorted(environment):
        if not name.startswith(PREFIX):
            continue
        key = by_name.get(name)
        if key is not None:
            found[key] = environment[name]
            continue
        near, ratio = _nearest(name, by_name)
        if (name.startswith(openings) and not _INJECTED.fullmatch(name)) or ratio >= 0.9:
            problems.append(f"environment: unknown variable {name} (did you mean {near}?)")
    return found


def _unknown_top(name: str, content: object, known: Mapping[str, Key]) -> str:
    if isinstance(content, dict):
        near, _ = _nearest(name, {key.section for key in known.values()})
        return f"unknown section [{name}] (did you mean [{near}]?)"
    homes = [key for key in known.values() if key.name == name]
    near = homes[0].dotted if homes else _nearest(name, known)[0]
    section, _, field = near.partition(".")
    return f"unknown key {name} outside of a section (did you mean {field} in [{section}]?)"


def _unknown(dotted: str, known: Mapping[str, Key]) -> str:
    section, _, name = dotted.partition(".")
    elsewhere = [key.dotted for key in known.values() if key.name == name]
    if elsewhere:
        near = elsewhere[0]
    else:
        siblings = [key.name for key in known.values() if key.section == section]
        near = f"{section}.{_nearest(name, siblings)[0]}"
    return f"unknown key {dotted} (did you mean {near}?)"


def _nearest(
    name: str, candidates: "Mapping[str, Any] | set[str] | list[str]"
) -> tuple[str, float]:
    """The candidate most like `name`, and how much from 0 to 1. Ties go by the alphabet."""
    rated = ((SequenceMatcher(None, name, other).ratio(), other) for other in sorted(candidates))
    ratio, other = max(rated, key=lambda pair: pair[0])
    return other, ratio


# --- values ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Why a value does not fit: what was expected instead."""

    expected: str


def _convert(key: Key, raw: object, *, from_text: bool) -> object:
    if issubclass(key.type, StrEnum):
        fits = raw in [member.value for member in key.type]
        return key.type(str(raw)) if fits else _Wrong(expected(key))
    if key.type is int or key.type is float:
        return _number(key, _parsed(raw, key.type) if from_text and isinstance(raw, str) else raw)
    if isinstance(raw, Path):
        raw = str(raw)
    if not isinstance(raw, str) or "\0" in raw or (key.meta.check and not key.meta.check(raw)):
        return _Wrong(expected(key))
    if key.type is Path:
        return Path(raw) if raw else _Wrong(expected(key))
    return raw


def _parsed(text: str, type_: type) -> object:
    try:
        return int(text) if type_ is int else float(text)
    except ValueError:
        return text


def _number(key: Key, raw: object) -> object:
    wanted: tuple[type, ...] = (int,) if key.type is int else (int, float)
    if isinstance(raw, bool) or not isinstance(raw, wanted):
        return _Wrong(expected(key))
    value = key.type(raw)
    low, high = key.meta.low, key.meta.high
    if not math.isfinite(value) or (low is not None and value < low):
        return _Wrong(expected(key))
    return _Wrong(expected(key)) if high is not None and value > high else value


def expected(key: Key) -> str:
    """What a value of this key looks like, in words."""
    if issubclass(key.type, StrEnum):
        return " or ".join(f'"{member.value}"' for member in key.type)
    if key.type not in {int, float}:
        return key.meta.form or "a text"
    words = "a whole number" if key.type is int else "a number"
    if key.meta.unit:
        words += f" of {key.meta.unit}"
    low, high = key.meta.low, key.meta.high
    if low is not None and high is not None:
        return f"{words} from {_plain(low)} to {_plain(high)}"
    if low is not None:
        return f"{words}, {_plain(low)} or more"
    return words


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _show(raw: object) -> str:
    """What was found, short and on one line."""
    text = repr(raw) if not isinstance(raw, bool) else str(raw).lower()
    return text if len(text) <= 80 else text[:77] + "..."
