"""What pyproject.toml cannot say: a built package takes the shipped weights along, which lie beside the library for Slicer's extension."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WEIGHTS = Path("Resources", "Weights")


class WithWeights(build_py):
    """Copies the weights to where ``presets.preset_path`` looks for them in an installed package; an editable one finds them beside it."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(WEIGHTS, Path(self.build_lib, "SAM2IterativeLib", WEIGHTS), dirs_exist_ok=True)


setup(cmdclass={"build_py": WithWeights})
