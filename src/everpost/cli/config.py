"""`everpost config`: show, check, explain and reload the settings."""

import os
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import click

from everpost.cli.client import json_option
from everpost.cli.reload import command as reload_command
from everpost.cli.root import Group
from everpost.cli.setup import node_options, traced
from everpost.cli.show import Printer
from everpost.config import Settings, masked, sample
from everpost.config.describe import literal

__all__ = ["command"]


@click.group(cls=Group, name="config")
def command() -> None:
    """Show, check, explain and reload the settings."""


@command.command("show")
@node_options
@json_option
def show(config: Path | None, data: Path | None, as_json: bool) -> None:
    """The settings in force here, and where each came from."""
    loaded = traced(config, os.environ, {"node.data": data})
    out = Printer(as_json=as_json)
    if as_json:
        out.json({"settings": _plain(loaded.settings), "origins": dict(loaded.origins)})
        return
    rows = []
    for section in fields(Settings):
        values = getattr(loaded.settings, section.name)
        for item in fields(values):
            dotted = f"{section.name}.{item.name}"
            origin = loaded.origins.get(dotted, "default")
            rows.append((dotted, masked(literal(getattr(values, item.name))), origin))
    out.table(["setting", "value", "from"], rows)


def _plain(settings: Settings) -> dict[str, dict[str, Any]]:
    def value(raw: object) -> object:
        if isinstance(raw, StrEnum):
            return raw.value
        if isinstance(raw, str):
            return masked(raw)
        return str(raw) if isinstance(raw, Path) else raw

    return {
        section.name: {
            item.name: value(getattr(getattr(settings, section.name), item.name))
            for item in fields(getattr(settings, section.name))
        }
        for section in fields(Settings)
    }


@command.command("check")
@node_options
@json_option
def check(config: Path | None, data: Path | None, as_json: bool) -> None:
    """Say whether a server would start with these settings; every wrong key is named."""
    loaded = traced(config, os.environ, {"node.data": data})
    out = Printer(as_json=as_json)
    if as_json:
        out.json({"ok": True, "file": str(loaded.file) if loaded.file else None})
        return
    out.line(f"The settings are in order ({loaded.file or 'no file'}).")


command.add_command(reload_command)


@command.command("sample")
def sample_() -> None:
    """Print a configuration file that explains every setting."""
    click.echo(sample(), nl=False)
