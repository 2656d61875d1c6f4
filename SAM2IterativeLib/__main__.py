"""``python -m SAM2IterativeLib``, and what ``sam2-iterative`` starts."""

import sys


def main() -> None:
    """The command line. Ctrl-C while its modules still load ends it as quietly as Ctrl-C later does."""
    try:
        from .cli import main as command_line
    except KeyboardInterrupt:
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
