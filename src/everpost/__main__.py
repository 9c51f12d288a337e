"""`python -m everpost` and the `everpost` command."""

import sys


def main() -> None:
    """Run one command; never returns."""
    from everpost.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
