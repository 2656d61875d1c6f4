"""SAM2 weights that a person can choose: names, sizes, where they come from and where they lie. Needs no torch.

``foundation.checkpoints`` loads them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import WeightsError

ADAPTED = "adapted"
"""The value of ``foundation.weights`` that means the project's own adapted weights, wherever the project is moved to."""

_OFFICIAL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
_MEDSAM2 = "https://huggingface.co/wanglab/MedSAM2/resolve/main/"


@dataclass(frozen=True)
class Preset:
    """A model a person can choose.

    Attributes:
        architecture: a key of ``OFFICIAL_CONFIGURATIONS``, or "compact".
        file: its name on disk; url: where it can be downloaded, empty if shipped.
        size: bytes, 0 where not published; sha256: empty where not published.
        about: one sentence for the person who chooses.
    """

    architecture: str
    file: str
    url: str
    size: int
    sha256: str
    about: str

    @property
    def shipped(self) -> bool:
        """Whether it comes with the project."""
        return not self.url


PRESETS = {
    "compact": Preset(
        "compact",
        "compact.safetensors",
        "",
        10_341_796,
        "29aa7dbc2284b093a5d146145aead072d7e6ae6c6a9e0f856fa26dd8e6fdfe3c",
        "Shipped: small, fast on a CPU, trained on generated volumes only.",
    ),
    "sam2.1-tiny": Preset(
        "sam2.1-tiny",
        "sam2.1_hiera_tiny.pt",
        _OFFICIAL + "sam2.1_hiera_tiny.pt",
        156_008_466,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        "Meta's SAM 2.1, 39 M parameters; wants a GPU.",
    ),
    "sam2.1-small": Preset(
        "sam2.1-small",
        "sam2.1_hiera_small.pt",
        _OFFICIAL + "sam2.1_hiera_small.pt",
        0,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        "Meta's SAM 2.1, 46 M parameters; wants a GPU.",
    ),
    "sam2.1-base-plus": Preset(
        "sam2.1-base-plus",
        "sam2.1_hiera_base_plus.pt",
        _OFFICIAL + "sam2.1_hiera_base_plus.pt",
        0,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        "Meta's SAM 2.1, 81 M parameters; wants a GPU.",
    ),
    "sam2.1-large": Preset(
        "sam2.1-large",
        "sam2.1_hiera_large.pt",
        _OFFICIAL + "sam2.1_hiera_large.pt",
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        "Meta's SAM 2.1, 224 M parameters; wants a GPU.",
    ),
    "medsam2": Preset(
        "medsam2",
        "MedSAM2_latest.pt",
        _MEDSAM2 + "MedSAM2_latest.pt",
        0,
        "",
        "SAM 2.1 tiny adapted to medical images at 512 pixels; its SHA-256 is not published.",
    ),
}


def shipped_folder() -> Path:
    """Where the shipped weights lie: ``Resources/Weights`` beside the library, or inside the installed package."""
    package = Path(__file__).resolve().parent
    candidates = [package / "Resources" / "Weights", package.parent / "Resources" / "Weights"]
    return next((folder for folder in candidates if folder.is_dir()), candidates[-1])


def download_folder() -> Path:
    """Where downloaded weights lie: ``$SAM2_ITERATIVE_MODELS``, else ``sam2-iterative`` in the user's cache folder."""
    chosen = os.environ.get("SAM2_ITERATIVE_MODELS")
    if chosen:
        return Path(chosen)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "sam2-iterative" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "sam2-iterative"
    return Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")) / "sam2-iterative"


def preset_path(name: str) -> Path:
    """Where the file of a preset lies or would lie."""
    preset = preset_of(name)
    return (shipped_folder() if preset.shipped else download_folder()) / preset.file


def weights_in_use(weights: str, models_folder: Path) -> str:
    """A preset's name or a file, from a project's setting ``foundation.weights`` and its ``models/`` folder."""
    return str(models_folder / "adapted.safetensors") if weights == ADAPTED else weights


def preset_of(name: str) -> Preset:
    """A preset by its name.

    Raises:
        WeightsError: there is none.
    """
    if name not in PRESETS:
        raise WeightsError(f"unknown model '{name}'.", cure=f"Known are: {', '.join(PRESETS)}.")
    return PRESETS[name]


def installed() -> Iterable[tuple[str, Preset, Path | None]]:
    """Every preset with its file, or None where it is not on this computer."""
    for name, preset in PRESETS.items():
        path = preset_path(name)
        yield name, preset, path if path.is_file() else None
