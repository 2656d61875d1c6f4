"""Terminology entries that a person can choose for a label: SNOMED CT codes as Slicer's own two lists have them."""

from __future__ import annotations

from SAM2IterativeLib.exchange.terminology import codes_of

_GENERAL = "Segmentation category and type - 3D Slicer General Anatomy list"
_MASTER = "Segmentation category and type - DICOM master list"
_REGIONS = "Anatomic codes - DICOM master list"
_ANATOMY = "SCT^123037004^Anatomical Structure"
_TISSUE = "SCT^85756007^Tissue"
_ALTERED = "SCT^49755003^Morphologically Altered Structure"
_TYPES = {
    (_GENERAL, _ANATOMY): (
        ("Aorta", "15825003"),
        ("Bladder", "89837001"),
        ("Brain", "12738006"),
        ("Esophagus", "32849002"),
        ("Gallbladder", "28231008"),
        ("Heart", "80891009"),
        ("Kidney", "64033007"),
        ("Left Ventricle", "87878005"),
        ("Liver", "10200004"),
        ("Lung", "39607008"),
        ("Pancreas", "15776009"),
        ("Prostate", "41216001"),
        ("Spinal cord", "2748008"),
        ("Spleen", "78961009"),
        ("Stomach", "69695003"),
        ("Thyroid", "69748006"),
        ("Trachea", "44567001"),
        ("Uterus", "35039007"),
    ),
    (_GENERAL, _TISSUE): (
        ("Artery", "51114001"),
        ("Bone", "272673000"),
        ("Muscle", "71616004"),
        ("Vein", "29092000"),
    ),
    (_GENERAL, _ALTERED): (
        ("Cyst", "367643001"),
        ("Edema", "79654002"),
        ("Mass", "4147007"),
        ("Necrosis", "6574001"),
    ),
    (_MASTER, _ANATOMY): (
        ("Hippocampus", "5366008"),
        ("Left atrium", "82471001"),
    ),
    (_MASTER, _ALTERED): (("Neoplasm", "108369006"),),
}
"""(list, category) -> names and codes, letter for letter as the list has them: Slicer looks entries up by all three."""


def choices() -> dict[str, str]:
    """Name -> entry, alphabetically; the generic "Tissue" first, whose entry is ""."""
    found = {name: _entry(*place, name, value) for place, types in _TYPES.items() for name, value in types}
    return {"Tissue": "", **dict(sorted(found.items()))}


def name_of(terminology: str) -> str:
    """What an entry means, e.g. "Liver"."""
    return codes_of(terminology)[1].meaning


def _entry(context: str, category: str, name: str, value: str) -> str:
    return "~".join((context, category, f"SCT^{value}^{name}", "^^", _REGIONS, "^^", "^^"))
