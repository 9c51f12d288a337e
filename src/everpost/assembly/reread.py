"""Reads the configuration again, in a process of its own so that the supervisor stays small: its
one argument is the origin as JSON. Prints one JSON object: `values` (environment) or `problems`."""

import json
import os
import sys
from pathlib import Path

from everpost.config import ConfigError, Settings, load
from everpost.config.load import environment_name, keys
from everpost.recovery.spawning import die_with_parent

__all__ = ["main", "values_of"]


def values_of(settings: Settings) -> dict[str, str]:
    """The settings as environment, so that every child has the very same."""
    return {
        environment_name(key): str(getattr(getattr(settings, key.section), key.name))
        for key in keys()
    }


def main() -> int:
    die_with_parent()
    origin = json.loads(sys.argv[1])
    file = Path(origin["file"]) if origin["file"] else None
    try:
        found: object = {"values": values_of(load(file, os.environ, origin["options"]))}
    except ConfigError as error:
        found = {"problems": error.problems}
    print(json.dumps(found))  # noqa: T201  read by the supervisor
    return 0


if __name__ == "__main__":
    sys.exit(main())
