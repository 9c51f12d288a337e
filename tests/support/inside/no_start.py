"""A process that delivers ends at its start under the settings that this test names: a window of
666. As often as the file `DIES` says, whatever its settings are."""

import os
import sys
from pathlib import Path

if "dispatch" in sys.orig_argv:
    if os.environ.get("EVERPOST_DISPATCH_WINDOW") == "666":
        sys.exit("no start")
    _times = Path(os.environ["DIES"])
    if _times.exists() and (_left := int(_times.read_text(encoding="ascii"))):
        _times.write_text(str(_left - 1), encoding="ascii")
        sys.exit("no start yet")
