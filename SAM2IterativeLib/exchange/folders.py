"""A folder of images, perhaps with a folder of label maps: volumes and 2-D pictures alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from ..files import IMAGE_SUFFIXES, stem_of, suffix_of
from ..intake import broken_link, data_file_of
from ..project import Project, Role
from .importing import Candidate, ImportOptions, ImportReport, OnCase, import_candidates
from .names import composed, matching_stem
from .subfolders import not_searched

_LABEL_ENDINGS = ("_label", "_labels", "-label", "_seg", "-seg", "_segmentation", "_mask", "-mask", "_gt")
_MARKED = re.compile(r"(.+)_(\d{4})")
"""A stem with nnU-Net's channel number."""


def image_files(folder: str | Path, channel: int | None = None) -> tuple[Path, ...]:
    """The image files directly in a folder, by name, label maps beside their images (``a_seg.nii.gz``, ``a.seg.nrrd``) left out.

    Args:
        channel: see ``folder_candidates``.

    Raises:
        DataError: no such folder, no image in it, or several channels of which none was chosen.
    """
    images, _, _ = _sorted_out(Path(folder))
    return _of_one_channel(images, channel, Path(folder).name)


def folder_candidates(
    images: str | Path, labels: str | Path | None = None, role: Role | None = None, channel: int | None = None
) -> tuple[list[Candidate], list[str]]:
    """Pair images and label maps by name.

    A label map bears its image's name, with another suffix or an ending such as ``_seg`` allowed; without a folder of its own it
    is looked for beside the image, where only the ending tells it from an image.

    Args:
        channel: which to take of images that are channels of one case (``x_0000``, ``x_0001``); the others are passed over.

    Returns:
        The candidates, and the names of files that are no images or label maps without an image.

    Raises:
        DataError: a folder is missing or holds no image, several channels of which none was chosen, or one folder for images and
            label maps that nothing tells apart.
    """
    found, beside, ignored = _sorted_out(Path(images))
    found = _of_one_channel(found, channel, Path(images).name)
    masks = beside
    if labels is not None and Path(labels).resolve() != Path(images).resolve():
        masks, others = label_files(labels)
        ignored += [*others, *(p.name for p in beside)]
    elif labels is not None and not beside:
        what = "it was given for images and label maps, and no file in it bears an image's name with an ending such as _seg."
        raise DataError(what, where=Path(images).name, cure="Put the label maps into a folder of their own, or name them so.")
    by_stem = by_image_stem(masks)
    names = {path: _name(path, channel) for path in found}
    candidates = [Candidate(names[p], p, by_stem.get(matching_stem(p)) or by_stem.get(composed(names[p])), role) for p in found]
    candidates = [c if _is_its_own(c, candidates) else replace(c, label=None) for c in candidates]
    used = {c.label for c in candidates}
    ignored += [p.name for p in masks if p not in used]
    return candidates, ignored


def label_files(folder: str | Path) -> tuple[list[Path], list[str]]:
    """The label maps of a folder, and the names of its other files.

    Raises:
        DataError: no such folder.
    """
    files = _files(Path(folder))
    known = [p for p in files if suffix_of(p) in IMAGE_SUFFIXES]
    return known, _neither(files, known)


def by_image_stem(masks: Sequence[Path]) -> dict[str, Path]:
    """Label maps by the stem of the image whose name they bear: with an ending such as ``_seg``, or better without."""
    return {_image_stem(p): p for p in masks} | {matching_stem(p): p for p in masks}


def _is_its_own(candidate: Candidate, others: Sequence[Candidate]) -> bool:
    """Whether a label map is this image's and no other's; of images with one name it is that with the same suffix, or none's."""
    rivals = [other for other in others if candidate.label is not None and other.label == candidate.label]
    return len(rivals) <= 1 or [r.image for r in rivals if suffix_of(r.image) == suffix_of(r.label or r.image)] == [candidate.image]


def _of_one_channel(images: tuple[Path, ...], channel: int | None, where: str) -> tuple[Path, ...]:
    """The images without the channels that are not wanted: a second contrast of a case is no other case."""
    marked = {path: match for path in images if (match := _MARKED.fullmatch(matching_stem(path)))}
    numbers: dict[str, set[int]] = {}
    for match in marked.values():
        numbers.setdefault(match[1], set()).add(int(match[2]))
    several = {name: found for name, found in numbers.items() if len(found) > 1 and 0 in found}
    if several and channel is None:
        name, found = next(iter(several.items()))
        files = ", ".join(f"{name}_{number:04d}" for number in sorted(found))
        cure = "Say which channel to take (--channel, counted from 0), or put one channel into a folder of its own."
        raise DataError(f"{files} look like channels of one case; one is expected.", where=where, cure=cure)
    return tuple(p for p in images if p not in marked or marked[p][1] not in several or int(marked[p][2]) == channel)


def import_folder(
    project: Project,
    images: str | Path,
    labels: str | Path | None = None,
    *,
    label_names: Sequence[str] = (),
    role: Role | None = None,
    options: ImportOptions | None = None,
    on_case: OnCase | None = None,
) -> ImportReport:
    """Import a folder of images; see ``folder_candidates`` for the pairs and ``import_candidates`` for what becomes of them."""
    candidates, ignored = folder_candidates(images, labels, role, options.channel if options else None)
    given = [Path(images), *([Path(labels)] if labels is not None else [])]
    apart = [project.folder, *given]
    remarks = not_searched(given[0], apart, "Import each of them, or put all images into one folder.")
    for folder in given[1:]:
        if folder.resolve() != given[0].resolve():
            remarks += not_searched(folder, apart, "Put all label maps into one folder, each named after its image.")
    return import_candidates(
        project, candidates, label_names=label_names, options=options, ignored=ignored, remarks=remarks, on_case=on_case
    )


def _sorted_out(folder: Path) -> tuple[tuple[Path, ...], list[Path], list[str]]:
    """Images, label maps that lie beside them, and the names of what is neither."""
    files = _files(folder)
    known = [p for p in files if suffix_of(p) in IMAGE_SUFFIXES]
    stems = {matching_stem(p) for p in known if suffix_of(p) != ".seg.nrrd"}
    masks = [p for p in known if suffix_of(p) == ".seg.nrrd" or (_image_stem(p) != matching_stem(p) and _image_stem(p) in stems)]
    images = tuple(p for p in known if p not in masks)
    if not images:
        below = " Its subfolders are not searched." if any(p.is_dir() for p in folder.iterdir()) else ""
        raise DataError(f"there is no image in this folder.{below}", where=folder.name, cure=f"Known are {', '.join(IMAGE_SUFFIXES)}.")
    return images, masks, _neither(files, known)


def _neither(files: Sequence[Path], known: Sequence[Path]) -> list[str]:
    """The names of files that are no images, nor the voxels of one with a header of its own."""
    taken = {*known, *(header.with_name(data.name) for header in known if (data := data_file_of(header)))}
    return [p.name for p in files if p not in taken]


def _files(folder: Path) -> list[Path]:
    """The files directly in a folder, by name; links to what is not here too, so that reading names them."""
    if not folder.is_dir():
        raise DataError("there is no such folder.", where=folder.name, cure="Check the name.")
    files = (p for p in folder.iterdir() if p.is_file() or broken_link(p))
    return sorted((p for p in files if not p.name.startswith(".")), key=lambda p: p.name)


def _image_stem(path: Path) -> str:
    """A label map's stem without its ending: ``a_seg`` gives ``a``."""
    stem = matching_stem(path)
    ending = next((e for e in _LABEL_ENDINGS if stem.lower().endswith(e)), "")
    return stem[: len(stem) - len(ending)] or stem


def _name(path: Path, channel: int | None) -> str:
    """The case's name: the stem without the number of nnU-Net's channel that is taken, the first one if none is said."""
    return stem_of(path).removesuffix(f"_{channel or 0:04d}") or stem_of(path)
