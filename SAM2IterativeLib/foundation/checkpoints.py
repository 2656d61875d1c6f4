"""Weight files: which there are, where they come from, and the one door through which they are loaded.

Nothing is ever unpickled freely, nothing is used whose length or SHA-256 is not as known, and random weights are never used instead.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..device import Device
from ..errors import ResourceError, SettingsError, WeightsError
from ..fetching import FETCHED, fetch
from ..files import sha256_of, write_bytes
from ..presets import PRESETS, preset_of, preset_path
from ..settings import from_table
from .sam2_model import OFFICIAL_CONFIGURATIONS, CompactArchitecture, SAM2Base, build_compact, build_official

_UNREADABLE = (
    *(SafetensorError, pickle.UnpicklingError, struct.error, OSError, EOFError, RuntimeError, ValueError),
    *(KeyError, IndexError, TypeError, AttributeError, AssertionError),
)
"""What the readers raise on damaged files: each was seen on truncated or altered ones."""


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
            how = "Reinstall SAM2Iterative."
            if not PRESETS[weights].shipped:
                how = f"Download them with: sam2-iterative models download {weights}, or place the file here: {path}"
            raise WeightsError(f"the weights '{weights}' are not on this computer.", cure=how)
        return path, PRESETS[weights].architecture
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"'{weights}' is neither a model's name nor a file.", cure=f"Names are: {', '.join(PRESETS)}.")
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
    preset, path = preset_of(name), locate(name)[0]
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
        tensors, architecture = _read_safetensors(path) if path.suffix == ".safetensors" else _read_official(path)
    except _UNREADABLE as error:
        raise WeightsError(
            f"cannot be read as a weight file ({type(error).__name__}): it is truncated, damaged or of another kind.",
            where=path.name,
            cure="Get the file again, or choose another one.",
        ) from error
    return tensors, None if architecture is None else _architecture(architecture, path)


def save_compact(model: SAM2Base, architecture: CompactArchitecture, path: Path, notes: dict[str, Any]) -> str:
    """Write compact weights as half-precision safetensors; returns their SHA-256.

    Args:
        notes: what the model card says, plain types only.
    """
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    metadata = {"architecture": json.dumps(asdict(architecture)), "notes": json.dumps(notes)}
    write_bytes(path, save(tensors, metadata))
    return sha256_of(path)


def export_official(source: Path, target: Path) -> None:
    """Write a compact weight file in the official format: a dict with "model" (single precision), our sizes beside it.

    Raises:
        WeightsError: the source is no compact weight file, or the target is there already.
    """
    if target.exists():
        raise WeightsError("is there already.", where=target.name, cure="Choose another name, or remove it.")
    tensors, architecture = read_tensors(source)
    if architecture is None:
        raise WeightsError("is already in the official format.", where=source.name)
    plain = {"model": {k: v.float() for k, v in tensors.items()}, "compact_architecture": _plain(asdict(architecture))}
    content = io.BytesIO()
    torch.save(plain, content)
    write_bytes(target, content.getvalue())


def download(name: str, report: Callable[[str], None], consent: bool) -> Path:
    """Download a preset into ``download_folder``, see ``fetching``: over https, what was cut off goes on, checked before it counts.

    Args:
        consent: the person has agreed to the size and the source; without it nothing is fetched.

    Raises:
        WeightsError: no consent, or the file that came is not the published one.
        ResourceError: no connection, or the file cannot be written.
    """
    preset, target = preset_of(name), preset_path(name)
    if preset.shipped:
        return locate(name)[0]
    size = f"{preset.size / 1e6:.0f} MB" if preset.size else "a size not published beforehand"
    if not consent:
        raise WeightsError(f"'{name}' is {size} from {preset.url}.", cure="Add --yes to agree to the download.")
    if target.is_file() and preset.sha256 and sha256_of(target) == preset.sha256:
        return target
    report(f"Downloading {name} ({size}) from {preset.url}")
    try:
        outcome = fetch(preset.url, target, preset.sha256, preset.size)
    except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
        cure = f"Give the command again, which goes on where it was cut off; or place the file here by hand: {target}"
        raise ResourceError(f"{preset.url} could not be fetched ({getattr(error, 'reason', error)}).", cure=cure) from error
    except OSError as error:
        raise ResourceError(f"could not be written ({error.strerror}).", where=target, cure="Free some space, or allow writing.") from error
    except ValueError as error:
        raise WeightsError(f"{error}.", where=preset.file, cure="Try again later.") from error
    if outcome != FETCHED:
        raise WeightsError("the file that came is not the published one.", where=preset.file, cure="Try again later.")
    _check_download(name, target)
    return target


def _check_download(name: str, target: Path) -> None:
    """By SHA-256 where one is published, else by reading it; a file that fails does not stay."""
    try:
        if PRESETS[name].sha256:
            verify(name)
        else:
            read_tensors(target)
    except WeightsError:
        target.unlink()
        raise


def remove(name: str) -> bool:
    """Delete a downloaded preset; returns whether there was one. Shipped weights are never deleted."""
    path = preset_path(name)
    if preset_of(name).shipped or not path.is_file():
        return False
    path.unlink()
    return True


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], object]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    architecture = metadata.get("architecture")
    return tensors, None if architecture is None else json.loads(architecture)


def _read_official(path: Path) -> tuple[dict[str, torch.Tensor], object]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in tensors.items()):
        raise WeightsError(
            'is no SAM2 checkpoint: a dict with "model" is expected.', where=path.name, cure="Choose a SAM2 checkpoint file."
        )
    return tensors, content.get("compact_architecture")


def _architecture(table: object, path: Path) -> CompactArchitecture:
    """Our sizes as a file states them; raises WeightsError where no model has such sizes."""
    try:
        if not isinstance(table, dict):
            raise SettingsError("is no table.")
        return from_table(CompactArchitecture, table, "architecture")
    except SettingsError as error:
        raise WeightsError(f"states no architecture of ours: {error}", where=path.name, cure="Get the file again.") from error


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in table.items()}


def _recognise(tensors: dict[str, torch.Tensor], path: Path) -> str:
    """The official architecture of a file, from its trunk's width and depth."""
    width = tensors.get("image_encoder.trunk.patch_embed.proj.weight", torch.empty(0)).shape[:1]
    depth = len({name.split(".")[3] for name in tensors if name.startswith("image_encoder.trunk.blocks.")})
    known = {(96, 12): "sam2.1-tiny", (96, 16): "sam2.1-small", (112, 24): "sam2.1-base-plus", (144, 48): "sam2.1-large"}
    name = known.get((width[0] if width else 0, depth))
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


def _renew(name: str) -> str:
    if PRESETS[name].shipped:
        return "Reinstall SAM2Iterative."
    return f"Remove it with 'sam2-iterative models remove {name}' and download it again."
