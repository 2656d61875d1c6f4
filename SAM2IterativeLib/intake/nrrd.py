"""NRRD headers (.nrrd, .seg.nrrd, .nhdr), read raw."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..files import resolve_under, suffix_of
from .checks import Findings, gunzipped, refuse_colour, require_length, require_origin, require_orthonormal, require_three_dimensions

_SIGNED = {"short": 2, "int": 4, "long long": 8, "longlong": 8}
_BYTES = {
    **dict.fromkeys(("signed char", "char", "uchar", "unsigned char"), 1),
    **{f"{sign}{name}{end}": n for name, n in _SIGNED.items() for sign in ("", "signed ", "unsigned ", "u") for end in ("", " int")},
    **{f"{sign}int{bits}{end}": bits // 8 for bits in (8, 16, 32, 64) for sign in ("", "u") for end in ("", "_t")},
    "float": 4,
    "double": 8,
}
_ANATOMICAL = re.compile("(left|right)-(posterior|anterior)-superior|lps|las|ras")
_NOT_SPACE = {
    "list",
    "vector",
    "point",
    "covariant-vector",
    "normal",
    "stub",
    "none",
    "3-color",
    "rgb-color",
    "4-color",
    "rgba-color",
}


def examine_nrrd(path: Path) -> Findings:
    """See ``examine``."""
    fields, data_start = read_fields(path)
    sizes = _numbers(fields.get("sizes", ""), path)
    if not sizes or fields.get("type", "") not in _BYTES:
        raise DataError(
            f"its header is not sound (type {fields.get('type')!r}, sizes {fields.get('sizes')!r}).",
            where=path.name,
            cure="Export it again.",
        )
    _require_plain_axes(fields, sizes, path)
    _require_sound_spacing(fields, sizes, path)
    require_origin(_numbers(fields.get("space origin", "").strip("() "), path), path.name)
    expected = int(np.prod(sizes)) * _BYTES[fields["type"]]
    data, start = path, data_start
    if "data file" in fields:
        data, start = detached_data(path, fields["data file"]), 0
    encoding = fields.get("encoding", "raw").lower()
    if encoding in ("gzip", "gz"):
        require_length(sum(len(b) for b in gunzipped(data, start)), expected, path)
    elif encoding == "raw":
        require_length(data.stat().st_size - start, expected, path)
    return Findings(remarks=_remarks(fields))


def read_fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields (lower-case names, "datafile" as "data file") and the byte at which attached data begin.

    Raises:
        DataError: not NRRD, or no end of the header within 1 MB.
    """
    lines, start = _header_lines(path)
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and not value.startswith("="):
            fields[name.strip().lower().replace("datafile", "data file")] = value.strip()
    return fields, start


def read_key_values(path: Path) -> dict[str, str]:
    """The header's own entries (``key:=value``), which Slicer keeps its segments in.

    Raises:
        DataError: see ``read_fields``.
    """
    pairs = (line.partition(":=") for line in _header_lines(path)[0])
    return {key: value for key, sign, value in pairs if sign}


def _header_lines(path: Path) -> tuple[list[str], int]:
    """The header without its magic line and comments, and the byte at which attached data begin."""
    with open(path, "rb") as stream:
        head = stream.read(1 << 20)
    end = re.search(rb"\r?\n\r?\n", head)
    if not head.startswith(b"NRRD") or (end is None and suffix_of(path) != ".nhdr"):
        raise DataError("it does not begin like an NRRD file.", where=path.name, cure="Check that it is an NRRD image.")
    text = (head[: end.start()] if end else head).decode("utf-8", "replace")
    return [line for line in text.splitlines()[1:] if not line.startswith("#")], end.end() if end else len(head)


def detached_data(header: Path, name: str) -> Path:
    """The data file beside a detached header; it must be one plain file in the same folder.

    Raises:
        DataError: a list or pattern of files, a name that leads elsewhere, or a missing file.
    """
    if name.upper().startswith("LIST") or "%" in name or Path(name).name != name:
        raise DataError(
            f"its data are in {name!r}; only one file in the same folder is read.",
            where=header.name,
            cure="Save it as one file (.nrrd, .mha).",
        )
    data = resolve_under(header.parent, name)
    if not data.is_file():
        raise DataError(f"its data file {name!r} is not there.", where=header.name, cure="Copy both files into one folder.")
    return data


def data_file_of_nrrd(path: Path) -> Path | None:
    """See ``data_file_of``.

    Raises:
        DataError: no NRRD header, or see ``detached_data``.
    """
    fields, _ = read_fields(path)
    return detached_data(path, fields["data file"]) if "data file" in fields else None


def _remarks(fields: dict[str, str]) -> tuple[str, ...]:
    """Without one of the three anatomical spaces nothing says where the patient's left is; readers differ in what they assume."""
    space = fields.get("space", "").lower()
    if "space directions" not in fields or _ANATOMICAL.fullmatch(space):
        return ()
    named = f"the space '{space}'" if space else "no space"
    return (f"its header names {named}: its axes were taken to run to the left, back and head (LPS); Slicer may turn it by 180 degrees.",)


def _require_plain_axes(fields: dict[str, str], sizes: list[float], path: Path) -> None:
    kinds = fields.get("kinds", "").lower().split()
    for kind, size in zip(kinds, sizes, strict=False):
        if kind in _NOT_SPACE and suffix_of(path) == ".seg.nrrd":
            raise DataError(
                f"its {size:g} layers hold overlapping segments; one voxel can only have one label here.",
                where=path.name,
                cure="Export the segments as one label map.",
            )
        if kind in _NOT_SPACE and len(sizes) > 3:
            refuse_colour(path, f"{size:g} numbers")
    if len(sizes) - sum(kind in _NOT_SPACE for kind in kinds) not in (2, 3):
        require_three_dimensions(len(sizes), path)


def _require_sound_spacing(fields: dict[str, str], sizes: list[float], path: Path) -> None:
    if "space directions" in fields:
        vectors = [_numbers(v, path) for v in re.findall(r"\(([^)]*)\)", fields["space directions"])]
        if len(vectors) == 3 and all(len(v) == 3 for v in vectors):
            require_orthonormal(np.array(vectors).T, [int(s) for s in sizes[-3:]], path.name)
    for value in _numbers(fields.get("spacings", ""), path)[: len(sizes)]:
        if value == 0 or (not np.isfinite(value) and "kinds" not in fields):
            raise DataError(f"its spacing {fields['spacings']} mm has a zero or is not a number.", where=path.name, cure="Export it again.")


def _numbers(text: str, path: Path) -> list[float]:
    try:
        return [float(v) for v in text.replace(",", " ").split()]
    except ValueError as error:
        raise DataError(f"its header holds {text!r} where numbers belong.", where=path.name, cure="Export it again.") from error
