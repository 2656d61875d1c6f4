"""Review and all that the Slicer module needs of floors 0 and 1 work in a Slicer where nothing was installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_SHIPPED = {"numpy", "scipy", "SimpleITK", "pydicom"}
_BLOCKED = (
    "torch torchvision sam2 monai safetensors typer rich pooch jinja2 matplotlib nibabel filelock pandas skimage PIL "
    "requests tqdm jpeg_ls vtk"
)

_PROGRAM = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

BLOCKED = set(sys.argv[2].split())
sys.meta_path.insert(0, Blocked())

from pathlib import Path
import numpy as np
from SAM2IterativeLib import errors, files, messages, settings, volumes
from SAM2IterativeLib.exchange import export_labels, import_any
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import PROPOSAL, Review

folder = Path(sys.argv[1])
geometry = volumes.Geometry((4, 6, 5))
labels = volumes.LabelMap((np.indices((4, 6, 5)).sum(axis=0) % 2).astype(np.uint8), geometry)
for n in range(2):
    volumes.write_volume(folder / "i" / f"{n}.nii.gz", volumes.Volume(np.full((4, 6, 5), n, np.int16), geometry))
volumes.write_label_map(folder / "l" / "0.nii.gz", labels)
with Project.create(folder / "p") as project:
    assert len(import_any(project, folder / "i", folder / "l", label_names=["organ"]).added) == 2
    path = project.artefact(0, "1", PROPOSAL)
    volumes.write_label_map(path, labels)
    project.journal.finish_unit(0, "fuse", "1", [path])
    review = Review(project)
    review.accept(review.queue()[0].case, reviewer="Ada")
    assert len(export_labels(project, folder / "o", "nrrd").written) == 2
installed = {name.split(".")[0] for name, module in sys.modules.items() if "site-packages" in str(getattr(module, "__file__", 0))}
print("loaded:", *(name for name in installed if not name.startswith("_")))
"""


def test_without_anything_that_slicer_does_not_ship(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path), _BLOCKED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split("loaded:")[1].split())
    assert "SimpleITK" in loaded
    assert loaded <= _SHIPPED | {"SAM2IterativeLib"}, f"Slicer does not ship {loaded - _SHIPPED}"
