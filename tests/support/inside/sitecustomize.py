"""Python imports this when it starts with `INSIDE` in its environment (`House(inside=…)`): it loads
the modules named there, which change the product's code for a test (a fault at one line, a mutant)
before anything of it runs."""

import importlib
import os

for _name in os.environ.get("INSIDE", "").split():
    importlib.import_module(_name)
