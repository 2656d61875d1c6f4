"""What a built package holds."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from small_projects import shipped_weights

from SAM2IterativeLib.presets import PRESETS

ROOT = Path(__file__).parents[2]


def test_a_wheel_brings_the_shipped_weights_and_the_reports_template(tmp_path: Path) -> None:
    preset = PRESETS[shipped_weights()]
    source = tmp_path / "source"
    for folder in ("SAM2IterativeLib", "Resources/Weights"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md"):
        shutil.copy(ROOT / file, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "."]
    subprocess.run(build, cwd=source, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert "SAM2IterativeLib/templates/report.html" in wheel.namelist()
        weights = wheel.read(f"SAM2IterativeLib/Resources/Weights/{preset.file}")
    assert hashlib.sha256(weights).hexdigest() == preset.sha256
