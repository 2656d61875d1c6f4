"""``python -m SAM2IterativeLib``: the same as ``sam2-iterative``."""

from .cli import main

if __name__ == "__main__":
    main()
