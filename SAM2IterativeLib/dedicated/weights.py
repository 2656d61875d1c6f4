"""Weights on disk: safetensors with a JSON description and a check sum, written whole or not at all, never unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ResourceError, WeightsError
from ..files import atomic_write

_KEY = "description"  # one key only: safetensors writes several in a random order, and the same weights must give the same file


def save_weights(path: str | Path, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and their description (plain JSON types) atomically; the same content gives the same bytes.

    Raises:
        ResourceError: the disk is full or not writable; an older file is still whole.
    """
    tensors = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    header = {_KEY: json.dumps({"content": content_hash(tensors), **description}, sort_keys=True)}
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except safetensors.SafetensorError as error:  # how that library tells of a full disk
            cure = "Free some space; the same action then goes on."
            raise ResourceError(f"the weights cannot be written: {error}.", where=Path(path).name, cure=cure) from error


def network_path(models_folder: Path, round: int) -> Path:
    """Where the network of a round lies among a project's models."""
    return models_folder / f"round_{round}.safetensors"


def load_weights(path: str | Path, cure: str = "Restore it from a copy of the project.") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and their description. The tensors are copies: Windows replaces no file that is still mapped into memory.

    Raises:
        WeightsError: the file is missing, truncated, altered, or none of ours.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError("the file is missing.", where=path.name, cure=cure)
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"the file is no whole safetensors file: {error}.", where=path.name, cure=cure) from error
    if _KEY not in header:
        raise WeightsError("the file was not written by SAM2Iterative.", where=path.name, cure=cure)
    description: dict[str, Any] = json.loads(header[_KEY])
    if description.pop("content", None) != content_hash(tensors):
        raise WeightsError("the weights were altered since they were written.", where=path.name, cure=cure)
    return tensors, description


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and values, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.flatten().view(dtype=torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
