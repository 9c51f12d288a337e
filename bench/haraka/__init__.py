"""Haraka from npm, tuned, as a second yardstick. `relay_to_sink.js` is its one plugin of ours."""

from bench.haraka.peer import run, version

__all__ = ["run", "version"]
