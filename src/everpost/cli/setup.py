"""Options and loading of settings for commands that run on the node itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from everpost.cli.exits import Wrong
from everpost.config import ConfigError, Loaded, Settings, trace

__all__ = ["node_options", "settings_of", "traced"]

R = TypeVar("R")


def node_options(command: Callable[..., R]) -> Callable[..., R]:
    """`--config` and `--data`."""
    config = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file. Default: everpost.toml in the data directory, if there.",
    )
    data = click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Data directory. Default: EVERPOST_NODE_DATA, then the file, then ./data.",
    )
    return config(data(command))


def settings_of(
    config: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object]
) -> Settings:
    """The settings of this node. Raises Wrong with every wrong key."""
    return traced(config, environment, overrides).settings


def traced(
    config: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object]
) -> Loaded:
    """The same, with where each value came from."""
    try:
        return trace(config, environment, overrides)
    except ConfigError as error:
        raise Wrong(str(error)) from error
