"""MetaImage headers (.mha, .mhd), read raw."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ..errors import DataError
from .checks import (
    Findings,
    refuse_colour,
    refused_if_damaged,
    require_length,
    require_origin,
    require_orthonormal,
    require_three_dimensions,
)
from .nrrd import detached_data

_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


def examine_meta_image(path: Path) -> Findings:
    """See ``examine``."""
    fields, start = _read_fields(path)
    try:
        size = [int(v) for v in fields["DimSize"].split()]
        spacing = [float(v) for v in fields.get("ElementSpacing", fields.get("ElementSize", "1 1 1")).split()]
        matrix = [float(v) for v in fields.get("TransformMatrix", fields.get("Orientation", "")).split()]
        origin = [float(v) for v in fields.get("Offset", fields.get("Position", fields.get("Origin", ""))).split()]
        item = _BYTES[fields["ElementType"].removeprefix("MET_").removeprefix("U")]
    except (KeyError, ValueError) as error:
        raise DataError("its header is not sound.", where=path.name, cure="Export it again.") from error
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    if channels > 1 and len(size) > 2:
        refuse_colour(path, f"{channels} numbers")
    require_three_dimensions(len(size), path)
    require_origin(origin, path.name)
    if len(size) == 3:
        direction = np.array(matrix).reshape(3, 3).T if len(matrix) == 9 else np.eye(3)
        require_orthonormal(direction * np.array(spacing), size, path.name)
    name = fields.get("ElementDataFile", "LOCAL")
    data, start = (path, start) if name.upper() == "LOCAL" else (detached_data(path, name), 0)
    _require_data(data, start, int(np.prod(size)) * channels * item, fields.get("CompressedData", "False")[:1] in "Tt1", path)
    return Findings()


def data_file_of_meta_image(path: Path) -> Path | None:
    """See ``data_file_of``.

    Raises:
        DataError: no MetaImage header, or see ``detached_data``.
    """
    name = _read_fields(path)[0]["ElementDataFile"]
    return None if name.upper() == "LOCAL" else detached_data(path, name)


def _read_fields(path: Path) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    with open(path, "rb") as stream:
        for _ in range(200):
            name, equals, value = stream.readline(4096).decode("utf-8", "surrogateescape").partition("=")
            if not equals:
                break
            fields[name.strip()] = value.strip()
            if name.strip() == "ElementDataFile":
                return fields, stream.tell()
    raise DataError("it does not begin like a MetaImage file.", where=path.name, cure="Check that it is a MetaImage file.")


def _require_data(data: Path, start: int, expected: int, compressed: bool, path: Path) -> None:
    if not compressed:
        require_length(data.stat().st_size - start, expected, path)
        return
    inflater, length = zlib.decompressobj(47), 0  # 47: zlib or gzip, told from the first bytes
    with open(data, "rb") as stream, refused_if_damaged(path):
        stream.seek(start)
        while block := stream.read(1 << 20):
            length += len(inflater.decompress(block))
        if not inflater.eof:
            raise EOFError
    require_length(length, expected, path)
