"""A module that imports only after another one has been is a hidden dependency."""

import pkgutil
import subprocess
import sys

import pytest

import everpost

_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [m for m in sys.modules if m == "everpost" or m.startswith("everpost.")]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(f"{name}: {error!r}")
"""


@pytest.mark.long
def test_a_module_that_only_imports_after_another_one() -> None:
    """Each module is imported with none of ours loaded before it."""
    names = [m.name for m in pkgutil.walk_packages(everpost.__path__, "everpost.")]
    names = [n for n in names if not n.endswith("__main__") and ".migrations." not in n]
    assert len(names) > 60
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _EACH, *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr
