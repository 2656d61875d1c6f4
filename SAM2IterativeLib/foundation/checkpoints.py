"""Weight files: which there are, where they come from, and the one door through which they are loaded.

Nothing is ever unpickled freely, nothing is used whose length or SHA-256 is not as known, and random weights are never used instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..device import Device
from ..errors import ResourceError, WeightsError
from ..files import atomic_write, sha256_of
from .sam2_model import OFFICIAL_CONFIGURATIONS, CompactArchitecture, SAM2Base, build_compact, build_official

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
        "compact", "compact.safetensors", "", 0, "", "Shipped: small, fast on a CPU, trained on generated volumes only."
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


@dataclass(frozen=True)
class Foundation:
    """A loaded SAM2.

    Attributes:
        model: in evaluation mode, without gradients.
        name: the preset's or the file's name; digest: SHA-256 of the file it came from.
        side: the model's input side in pixels.
        imagenet: whether it wants ImageNet's normalisation (the official models) or mean 0 and deviation 1 (ours).
    """

    model: SAM2Base
    name: str
    digest: str
    side: int
    imagenet: bool


def shipped_folder() -> Path:
    """Where the shipped weights lie: ``Resources/Weights`` beside the library, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    candidates = [package / "Resources" / "Weights", package.parent / "Resources" / "Weights"]
    return next((folder for folder in candidates if folder.is_dir()), candidates[-1])


def download_folder() -> Path:
    """Where downloaded weights lie: ``$SAM2_ITERATIVE_MODELS``, else ``sam2-iterative`` in the user's cache folder."""
    chosen = os.environ.get("SAM2_ITERATIVE_MODELS")
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("sam2-iterative"))


def preset_path(name: str) -> Path:
    """Where the file of a preset lies or would lie."""
    preset = _preset(name)
    return (shipped_folder() if preset.shipped else download_folder()) / preset.file


def locate(weights: str) -> tuple[Path, str]:
    """The file and the architecture that a person's choice means.

    Args:
        weights: a preset's name, or the path of a checkpoint file (its architecture is read from its tensors).

    Raises:
        WeightsError: neither; the cure says how to get it.
    """
    if weights in PRESETS:
        path = preset_path(weights)
        if not path.is_file():
            how = "Reinstall SAM2Iterative." if PRESETS[weights].shipped else (
                f"Download it with: sam2-iterative models download {weights}, or place the file at {path.name} in the models folder."
            )
            raise WeightsError(f"the weights '{weights}' are not on this computer.", cure=how)
        return path, PRESETS[weights].architecture
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"'{weights}' is neither a model's name nor a file.", cure=f"Names are: {', '.join(PRESETS)}."
        )
    return path, ""


def load_foundation(weights: str, device: Device) -> Foundation:
    """Load a SAM2 through the one door.

    Raises:
        WeightsError: missing, truncated, altered or foreign file.
    """
    path, architecture = locate(weights)
    digest = verify(weights) if weights in PRESETS else sha256_of(path)
    tensors, ours = read_tensors(path)
    if ours is not None:
        model, side, imagenet = build_compact(ours), ours.image_size, False
    else:
        name = architecture if architecture in OFFICIAL_CONFIGURATIONS else _recognise(tensors, path)
        model = build_official(name)
        side, imagenet = model.image_size, True
    _fill(model, tensors, path)
    model.requires_grad_(False)
    return Foundation(model.to(device.torch).eval(), weights if weights in PRESETS else path.name, digest, side, imagenet)


def verify(name: str) -> str:
    """Check a preset's file against its published length and SHA-256; returns the SHA-256.

    Raises:
        WeightsError: it differs.
    """
    preset, path = _preset(name), locate(name)[0]
    size = path.stat().st_size
    if preset.size and size != preset.size:
        raise WeightsError(f"has {size:,} bytes, {preset.size:,} are expected: it is truncated.", where=path.name, cure=_renew(name))
    digest = sha256_of(path)
    if preset.sha256 and digest != preset.sha256:
        raise WeightsError("its SHA-256 is not the published one: it is damaged or altered.", where=path.name, cure=_renew(name))
    return digest


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], CompactArchitecture | None]:
    """The tensors of a weight file, and our architecture where the file says so.

    Safetensors (ours), or the official format: a dict with "model", read with ``weights_only``.

    Raises:
        WeightsError: truncated, no weight file, or one that would have to be unpickled freely.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError, _unpickling_error()) as error:
        raise WeightsError(
            f"cannot be read as a weight file ({type(error).__name__}): it is truncated, damaged or of another kind.",
            where=path.name,
            cure="Get the file again, or choose another one.",
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise WeightsError(
            'is no SAM2 checkpoint: a dict with "model" is expected.', where=path.name, cure="Choose a SAM2 checkpoint file."
        )
    tensors = content["model"]
    architecture = content.get("compact_architecture")
    return tensors, None if architecture is None else _architecture(architecture)


def save_compact(model: SAM2Base, architecture: CompactArchitecture, path: Path, notes: dict[str, Any]) -> str:
    """Write compact weights as half-precision safetensors; returns their SHA-256.

    Args:
        notes: what the model card says, plain types only.
    """
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    metadata = {"architecture": json.dumps(asdict(architecture)), "notes": json.dumps(notes)}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return sha256_of(path)


def export_official(source: Path, target: Path) -> None:
    """Write a compact weight file in the official format: a dict with "model" (single precision), our sizes beside it."""
    tensors, architecture = read_tensors(source)
    if architecture is None:
        raise WeightsError("is already in the official format.", where=source.name)
    plain = {"model": {k: v.float() for k, v in tensors.items()}, "compact_architecture": _plain(asdict(architecture))}
    with atomic_write(target) as temporary:
        torch.save(plain, temporary)


def download(name: str, report: Callable[[str], None], consent: bool) -> Path:
    """Download a preset into ``download_folder``, over https, to a temporary name, checked before it counts.

    Args:
        consent: the person has agreed to the size and the source; without it nothing is fetched.

    Raises:
        WeightsError: no consent, or the file that came is not the published one.
        ResourceError: no connection.
    """
    import pooch
    from requests import RequestException

    preset, target = _preset(name), preset_path(name)
    if preset.shipped:
        return locate(name)[0]
    size = f"{preset.size / 1e6:.0f} MB" if preset.size else "a size not published beforehand"
    if not consent:
        raise WeightsError(f"'{name}' is {size} from {preset.url}.", cure="Add --yes to agree to the download.")
    report(f"Downloading {name} ({size}) from {preset.url}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        pooch.retrieve(
            preset.url, known_hash=f"sha256:{preset.sha256}" if preset.sha256 else None, fname=preset.file, path=target.parent
        )
    except RequestException as error:
        raise ResourceError(
            f"{preset.url} could not be reached.", cure=f"Place the file there by hand: {preset.file} in the models folder."
        ) from error
    except ValueError as error:
        raise WeightsError("the file that came is not the published one.", where=preset.file, cure="Try again later.") from error
    if preset.sha256:
        verify(name)
    return target


def remove(name: str) -> bool:
    """Delete a downloaded preset; returns whether there was one. Shipped weights are never deleted."""
    path = preset_path(name)
    if _preset(name).shipped or not path.is_file():
        return False
    path.unlink()
    return True


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], CompactArchitecture | None]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    architecture = metadata.get("architecture")
    return tensors, None if architecture is None else _architecture(json.loads(architecture))


def _architecture(table: dict[str, Any]) -> CompactArchitecture:
    return CompactArchitecture(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in table.items()}


def _recognise(tensors: dict[str, torch.Tensor], path: Path) -> str:
    """The official architecture of a file, from its trunk's width and depth."""
    width = tensors.get("image_encoder.trunk.patch_embed.proj.weight", torch.empty(0)).shape[:1]
    blocks = [int(name.split(".")[3]) for name in tensors if name.startswith("image_encoder.trunk.blocks.")]
    known = {(96, 12): "sam2.1-tiny", (96, 16): "sam2.1-small", (112, 24): "sam2.1-base-plus", (144, 48): "sam2.1-large"}
    name = known.get((width[0] if width else 0, max(blocks, default=-1) + 1))
    if name is None:
        raise WeightsError("is of a foreign model: its image encoder is none of SAM2's.", where=path.name, cure="Choose a SAM2 file.")
    return "medsam2" if name == "sam2.1-tiny" and "medsam2" in path.name.lower() else name


def _fill(model: SAM2Base, tensors: dict[str, torch.Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing, foreign = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    reshaped = [name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape]
    if missing or foreign or reshaped:
        raise WeightsError(
            f"does not fit the model: {len(missing)} tensors missing, {len(foreign)} foreign, {len(reshaped)} of another size"
            f" (first: {next(iter((*missing, *foreign, *reshaped)))}).",
            where=path.name,
            cure="Choose the file that belongs to this model.",
        )
    broken = _not_finite(tensors)
    if broken:
        raise WeightsError(f"holds values that are not finite ({broken}).", where=path.name, cure="Get the file again.")
    model.load_state_dict(tensors)


def _not_finite(tensors: dict[str, torch.Tensor]) -> str | None:
    return next((name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()), None)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise WeightsError(f"unknown model '{name}'.", cure=f"Known are: {', '.join(PRESETS)}.")
    return PRESETS[name]


def _renew(name: str) -> str:
    if PRESETS[name].shipped:
        return "Reinstall SAM2Iterative."
    return f"Remove it with 'sam2-iterative models remove {name}' and download it again."


def _unpickling_error() -> type[Exception]:
    import pickle

    return pickle.UnpicklingError


def installed() -> Iterable[tuple[str, Preset, Path | None]]:
    """Every preset with its file, or None where it is not on this computer."""
    for name, preset in PRESETS.items():
        path = preset_path(name)
        yield name, preset, path if path.is_file() else None
