"""Generated volumes with exact labels: one invented anatomy, every case another person and another scan of it.

For the demo, the tests and for trying things out without patient data. A case is a big lobed organ (label 1), a smaller one half
sunk into it (label 2) and, if asked for, a branching vessel (label 3), amid organs that look the same but bear no label. So the
place within the body must be learned, not only the brightness; a few labelled cases do not suffice for that, many do.

Sampling is separated from rendering: ``sample_anatomy`` holds the person, ``_Scan`` the scanner's part of the randomness, and
rendering is a function of both.

The anatomy lives in body coordinates: x to the left, y to the back, z to the head (LPS), the field of view spanning [-1, 1] on
each axis. Only the voxel grid knows of slices, so that a flipped or oblique scan shows the same person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.special import expit

from .geometry import Geometry
from .volumes import LabelMap, Volume, write_label_map, write_volume

Floats = NDArray[np.floating[Any]]

LABEL_NAMES = ("organ", "gland", "vessel")
"""Names of labels 1, 2, 3."""

ROUNDED, ABRUPT = 24.0, 120.0
"""How the parts of a structure join, in 1 / body units: organs' lobes melt together, a vessel's balls must not swell."""
FAR = 0.3
"""Body units beyond which a part of a structure no longer matters."""
GREY_LEVELS = 600.0
"""Intensity of the brightest tissue in the stored whole numbers, about that of an MR scan."""


@dataclass(frozen=True)
class Structure:
    """Smoothly joined ellipsoids of one tissue, in body coordinates.

    ``centres`` and ``radii`` are (n, 3) along x, y, z; ``brightness`` in [0, 1]; ``label`` 0 for a structure without a label.
    """

    centres: Floats
    radii: Floats
    brightness: float
    label: int = 0
    sharpness: float = ROUNDED

    def distance(self, points: Floats) -> Floats:
        """About the signed distance (k, j, i) of points (k, j, i, 3) to the surface, negative inside; only large far away."""
        low, high = points.min(axis=(0, 1, 2)) - FAR, points.max(axis=(0, 1, 2)) + FAR
        joined: Floats = np.full(points.shape[:-1], np.exp(-60.0), dtype=np.float32)
        for centre, radii in zip(self.centres, self.radii, strict=True):
            if (centre + radii < low).any() or (centre - radii > high).any():
                continue
            offset = (points - centre) / radii
            reach = np.sqrt(np.einsum("...a,...a->...", offset, offset)) - 1.0
            # Beyond 60 the exponent would overflow; there the point is far inside or outside anyway.
            joined += np.exp(np.clip(-self.sharpness * radii.min() * reach, -60.0, 60.0))
        return -np.log(joined) / np.float32(self.sharpness)


@dataclass(frozen=True)
class Waves:
    """A smooth random field on body coordinates: a sum of plane waves. ``vectors`` (n, 3), ``phases`` and ``heights`` (n,)."""

    vectors: Floats
    phases: Floats
    heights: Floats

    @classmethod
    def sample(cls, random: np.random.Generator, count: int, frequency: float, height: float) -> Waves:
        """Waves of up to ``frequency`` radians per body unit whose sum has a standard deviation of ``height``."""
        vectors = random.uniform(-frequency, frequency, (count, 3)).astype(np.float32)
        phases = random.uniform(0.0, 2.0 * np.pi, count).astype(np.float32)
        return cls(vectors, phases, np.full(count, height * np.sqrt(2.0 / count), dtype=np.float32))

    def at(self, points: Floats) -> Floats:
        """The field at points (..., 3); (...)."""
        return np.asarray(np.sin(points @ self.vectors.T + self.phases) @ self.heights)


@dataclass(frozen=True)
class Anatomy:
    """One person: structures from the back of the drawing order to the front, a pose, and a smooth deformation."""

    structures: tuple[Structure, ...]
    pose: Floats
    """(3, 3): turns and scales body coordinates into the person's own."""
    bends: tuple[Waves, ...]
    """Three: the displacement along x, y and z, in body units."""

    def own(self, points: Floats) -> Floats:
        """Body coordinates (..., 3) in the person's own, in which the structures are described."""
        displaced = points + np.stack([bend.at(points) for bend in self.bends], axis=-1)
        return np.asarray(displaced @ self.pose.T)


@dataclass(frozen=True)
class _Scan:
    """What the scanner adds: contrast curve, uneven sensitivity, tissue texture, blur and noise."""

    gamma: float
    sensitivity: Waves
    texture: Waves
    blur: float
    """Standard deviation in pixels."""
    noise: float
    seed: int


def phantom_case(
    seed: int,
    *,
    size: tuple[int, int, int] = (24, 64, 64),
    labels: int = 2,
    spacing: tuple[float, float, float] = (2.5, 1.0, 1.0),
    flipped: bool = False,
    oblique: bool = False,
) -> tuple[Volume, LabelMap]:
    """One generated case; the same arguments give the same voxels.

    Args:
        seed: the person and the scan.
        size: voxels along k, j, i.
        labels: 2 (organ, gland) or 3 (and vessel).
        spacing: mm along k, j, i. The anatomy fills the field of view whatever its size in mm.
        flipped: some image axes run the other way (as between scanners' conventions); the anatomy in space stays.
        oblique: the grid is turned by up to 12 degrees about each axis.

    Returns:
        An int16 image and its uint8 label map on one geometry.

    Raises:
        ValueError: ``labels`` is neither 2 nor 3.
    """
    if labels not in (2, 3):
        raise ValueError(f"a phantom has 2 or 3 labels, not {labels}.")
    random = np.random.default_rng([seed, 0])
    anatomy = sample_anatomy(random, labels)
    scan = _sample_scan(random)
    geometry = _sample_geometry(np.random.default_rng([seed, 1]), size, spacing, flipped, oblique)
    image, label_map = _render(anatomy, scan, geometry)
    return Volume(image, geometry), LabelMap(label_map, geometry)


def write_phantom_dataset(
    folder: Path,
    cases: int,
    labelled: int,
    seed: int = 0,
    references_folder: Path | None = None,
    *,
    size: tuple[int, int, int] = (24, 64, 64),
    labels: int = 2,
    varied: bool = False,
) -> tuple[str, ...]:
    """Write ``cases`` generated cases as NIfTI: ``folder/images/*.nii.gz`` and, for the first ``labelled``, ``folder/labels``.

    Args:
        folder: made if it does not exist.
        cases: number of cases.
        labelled: number of cases whose label map is given.
        seed: of the whole set; case n of a set does not depend on how many follow.
        references_folder: where the label maps of the other cases go, outside ``folder`` so that no method can see them; None
            writes none.
        size: voxels along k, j, i.
        labels: 2 or 3.
        varied: cases differ in size, spacing and orientation, as in data from several hospitals.

    Returns:
        The cases' names, the labelled ones first.

    Raises:
        ValueError: more labelled cases than cases, or the references would lie within ``folder``.
    """
    if labelled > cases:
        raise ValueError(f"{labelled} labelled cases were asked for, but only {cases} cases.")
    if references_folder is not None and references_folder.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the references must lie outside {folder}, where a method could read them.")
    names = tuple(f"phantom_{number:03d}" for number in range(cases))
    for number, name in enumerate(names):
        volume, label_map = _dataset_case(seed, number, size, labels, varied)
        target = folder / "labels" if number < labelled else references_folder
        for kept in (folder / "images", target):
            if kept is not None:
                kept.mkdir(parents=True, exist_ok=True)
        write_volume(folder / "images" / f"{name}.nii.gz", volume)
        if target is not None:
            write_label_map(target / f"{name}.nii.gz", label_map)
    return names


def _dataset_case(seed: int, number: int, size: tuple[int, int, int], labels: int, varied: bool) -> tuple[Volume, LabelMap]:
    case_seed = seed * 100_003 + number
    if not varied:
        return phantom_case(case_seed, size=size, labels=labels)
    random = np.random.default_rng([case_seed, 2])
    k, j, i = (round(length * random.uniform(0.85, 1.15)) for length in size)
    pixel = random.uniform(0.8, 1.2)
    return phantom_case(
        case_seed, size=(k, j, i), labels=labels, spacing=(random.uniform(2.0, 3.5), pixel, pixel), flipped=True, oblique=True
    )


def sample_anatomy(random: np.random.Generator, labels: int = 2) -> Anatomy:
    """A person: everything has its place, and everybody's places, sizes and contrasts differ a little."""
    body = _body(random)
    unlabelled = [
        _organ(random, [(0.52, 0.18, 0.2)], [(0.2, 0.26, 0.4)], 0.55),  # looks like the organ, on the other side
        _organ(random, [(0.36, -0.3, 0.05)], [(0.24, 0.2, 0.34)], 0.5),  # lies against the organ's left lobe
        _organ(random, [(0.34, 0.42, -0.32)], [(0.14, 0.16, 0.26)], 0.74),  # looks like the gland
        _organ(random, [(-0.3, 0.52, -0.42)], [(0.14, 0.15, 0.26)], 0.72),
        *(_bowel_loop(random) for _ in range(5)),
    ]
    organ = _organ(
        random,
        [(-0.36, -0.05, 0.05), (0.02, -0.32, 0.16), (-0.46, 0.22, -0.28)],
        [(0.34, 0.38, 0.46), (0.28, 0.18, 0.26), (0.2, 0.22, 0.32)],
        0.55,
        label=1,
    )
    gland = _organ(random, [(-0.12, 0.12, -0.12)], [(0.2, 0.22, 0.32)], 0.75, label=2)
    vessel = [_vessel(random)] if labels == 3 else []
    return Anatomy(
        structures=(*body, *unlabelled, organ, gland, *vessel),
        pose=_pose(random),
        bends=tuple(Waves.sample(random, 6, frequency=4.0, height=0.035) for _ in range(3)),
    )


def _body(random: np.random.Generator) -> list[Structure]:
    """Fat under the skin, the inside, the spine; endless towards head and feet."""
    girth = np.array([0.92, 0.82, 9.0]) * np.append(random.normal(1.0, 0.03, 2), 1.0)
    inner = girth - np.array([1.0, 1.0, 0.0]) * random.uniform(0.05, 0.12)
    spine = [0.11, 0.11, 9.0]
    return [
        _structure([(0.0, 0.0, 0.0)], [girth], random.normal(0.78, 0.04)),
        _structure([(0.0, 0.0, 0.0)], [inner], random.normal(0.34, 0.03)),
        _structure([(0.0, 0.6, 0.0)], [spine], random.normal(0.2, 0.03)),
    ]


def _organ(
    random: np.random.Generator,
    centres: Sequence[Sequence[float]],
    radii: Sequence[Sequence[float]],
    brightness: float,
    label: int = 0,
) -> Structure:
    """A structure near its usual place: it moves as a whole, each part a little more, and each part has its own size."""
    shift = random.normal(0.0, 0.04, 3)
    places = np.asarray(centres) + shift + random.normal(0.0, 0.03, (len(centres), 3))
    sizes = np.asarray(radii) * np.exp(random.normal(0.0, 0.14, (len(centres), 3)))
    return _structure(places, sizes, random.normal(brightness, 0.035), label)


def _bowel_loop(random: np.random.Generator) -> Structure:
    """A blob anywhere in the belly, of any brightness between the inside's and the gland's."""
    place = random.uniform((-0.6, -0.5, -0.9), (0.6, 0.3, -0.35))
    return _structure([place], [random.uniform(0.08, 0.17, 3)], random.uniform(0.4, 0.8))


def _vessel(random: np.random.Generator) -> Structure:
    """A trunk along the body with a branch into the organ, as chains of overlapping balls."""
    along = np.linspace(0.0, 1.0, 24)[:, None]
    root = np.array([0.08, 0.36, -1.1]) + random.normal(0.0, 0.04, 3)
    top = np.array([0.02, 0.3, 1.1]) + random.normal(0.0, 0.05, 3)
    bow = np.array([1.0, 0.4, 0.0]) * random.normal(0.0, 0.05) * np.sin(np.pi * along)
    trunk = root + along * (top - root) + bow
    fork = trunk[random.integers(12, 15)]
    branch = fork + along[:16] / along[15] * (np.array([-0.35, -0.1, 0.35]) + random.normal(0.0, 0.06, 3) - fork)
    width = random.uniform(0.075, 0.1)
    radii = np.concatenate([np.full(24, width), np.linspace(width, 0.6 * width, 16)])
    balls = np.repeat(radii[:, None], 3, axis=1)
    return replace(_structure(np.concatenate([trunk, branch]), balls, random.normal(0.85, 0.04), label=3), sharpness=ABRUPT)


def _structure(centres: object, radii: object, brightness: float, label: int = 0) -> Structure:
    return Structure(np.asarray(centres, dtype=np.float32), np.asarray(radii, dtype=np.float32), float(brightness), label)


def _pose(random: np.random.Generator) -> Floats:
    turn = Rotation.from_euler("xyz", random.normal(0.0, 5.0, 3), degrees=True).as_matrix()
    return np.asarray(turn * np.exp(random.normal(0.0, 0.06)), dtype=np.float32)


def _sample_scan(random: np.random.Generator) -> _Scan:
    return _Scan(
        gamma=float(np.exp(random.normal(0.0, 0.2))),
        sensitivity=Waves.sample(random, 4, frequency=2.0, height=0.14),
        texture=Waves.sample(random, 24, frequency=22.0, height=0.02),
        blur=float(random.uniform(0.4, 0.8)),
        noise=float(random.uniform(0.03, 0.06)),
        seed=int(random.integers(2**31)),
    )


def _sample_geometry(
    random: np.random.Generator,
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    flipped: bool,
    oblique: bool,
) -> Geometry:
    """A grid whose middle lies near the scanner's, its columns i, j, k along ± x, y, z or obliquely to them."""
    direction = np.eye(3)
    if flipped:
        signs = random.choice([-1.0, 1.0], 3)
        direction = direction * signs
    if oblique:
        direction = Rotation.from_euler("xyz", random.uniform(-12.0, 12.0, 3), degrees=True).as_matrix() @ direction
    to_middle = direction @ (np.array(spacing[::-1]) * (np.array(size[::-1]) - 1) / 2)
    origin = random.uniform(-40.0, 40.0, 3) - to_middle
    return Geometry(size=size, spacing=spacing, origin=tuple(origin.tolist()), direction=tuple(direction.ravel().tolist()))


def _render(anatomy: Anatomy, scan: _Scan, geometry: Geometry) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Image and label map (k, j, i), slice by slice, so that a large volume needs no more memory than it has voxels."""
    layers = 3 if geometry.slices > 1 else 1
    signal = np.empty(geometry.size, dtype=np.float32)
    label_map = np.empty(geometry.size, dtype=np.uint8)
    for z in range(geometry.slices):
        points = _body_coordinates(geometry, z, layers)
        tissue, label_map[z] = _slice(anatomy, scan.texture, points, edge=1.0 / max(geometry.size[1:]))
        signal[z] = np.maximum(tissue, 0.0) ** scan.gamma * np.exp(scan.sensitivity.at(points[layers // 2]))
    return _scanned(signal, scan), label_map


def _slice(anatomy: Anatomy, texture: Waves, points: Floats, edge: float) -> tuple[Floats, NDArray[np.uint8]]:
    """Brightness and labels (j, i) of one slice given as layers of points (layers, j, i, 3).

    Partial volume: along the slice's thickness the layers are averaged, within the slice borders are soft over ``edge``, in body
    units about half a pixel. The label is that of the voxel's middle.
    """
    own = anatomy.own(points)
    brightness = np.zeros(points.shape[:-1], dtype=np.float32)
    labels = np.zeros(points.shape[:-1], dtype=np.uint8)
    for structure in anatomy.structures:
        distance = structure.distance(own)
        brightness += expit(-distance / edge) * (structure.brightness - brightness)
        labels[distance < 0] = structure.label
    tissue = brightness * (1.0 + texture.at(own))
    return tissue.mean(axis=0), labels[len(points) // 2]


def _scanned(signal: Floats, scan: _Scan) -> NDArray[np.int16]:
    """The stored image (k, j, i): blurred, and with noise as in magnitude MR images (Rician)."""
    signal = ndimage.gaussian_filter(signal, (0.0, scan.blur, scan.blur))
    noise = np.random.default_rng(scan.seed).normal(0.0, scan.noise, (2, *signal.shape))
    magnitude = np.hypot(signal + noise[0], noise[1])
    return np.asarray(np.rint(magnitude * GREY_LEVELS), dtype=np.int16)


def _body_coordinates(geometry: Geometry, z: int, layers: int) -> Floats:
    """Body coordinates of the voxels' middles of slice ``z``, which is cut into ``layers``; (layers, j, i, 3) as x, y, z."""
    k, j, i = geometry.size
    slices = z + (np.arange(layers) + 0.5) / layers - 0.5
    index = np.stack(np.meshgrid(slices, np.arange(j), np.arange(i), indexing="ij")[::-1], axis=-1)
    step = np.array(geometry.spacing[::-1])
    direction = np.array(geometry.direction).reshape(3, 3)
    half_view = step * np.array([i, j, k]) / 2
    offset = (index - (np.array([i, j, k]) - 1) / 2) * step @ direction.T
    # Along each body axis lies the image axis that is nearest to it, so an oblique grid keeps the person's proportions.
    return np.asarray(offset / half_view, dtype=np.float32)
