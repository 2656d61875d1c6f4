"""Terminology entries that a person can choose for a label: SNOMED CT codes as Slicer's General Anatomy list has them."""

from __future__ import annotations

from SAM2IterativeLib.exchange.terminology import codes_of

_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"
_ANATOMY = "SCT^123037004^Anatomical Structure"
_ALTERED = "SCT^49755003^Morphologically Altered Structure"
_TYPES = {
    _ANATOMY: (
        ("Aorta", "15825003"),
        ("Artery", "51114001"),
        ("Bone", "272673000"),
        ("Brain", "12738006"),
        ("Esophagus", "32849002"),
        ("Gallbladder", "28231008"),
        ("Heart", "80891009"),
        ("Hippocampus", "3702007"),
        ("Kidney", "64033007"),
        ("Left atrium", "82471001"),
        ("Left ventricle", "87878005"),
        ("Liver", "10200004"),
        ("Lung", "39607008"),
        ("Muscle", "71616004"),
        ("Pancreas", "15776009"),
        ("Prostate", "41216001"),
        ("Spinal cord", "2748008"),
        ("Spleen", "78961009"),
        ("Stomach", "69695003"),
        ("Thyroid gland", "69748006"),
        ("Trachea", "44567001"),
        ("Urinary bladder", "89837001"),
        ("Uterus", "35039007"),
        ("Vein", "29092000"),
    ),
    _ALTERED: (
        ("Cyst", "367643001"),
        ("Edema", "79654002"),
        ("Mass", "4147007"),
        ("Necrosis", "6574001"),
        ("Neoplasm", "108369006"),
    ),
}


def choices() -> dict[str, str]:
    """Name -> entry, alphabetically; the generic "Tissue" first, whose entry is ""."""
    found = {name: _entry(category, name, value) for category, types in _TYPES.items() for name, value in types}
    return {"Tissue": "", **dict(sorted(found.items()))}


def name_of(terminology: str) -> str:
    """What an entry means, e.g. "Liver"."""
    return codes_of(terminology)[1].meaning


def _entry(category: str, name: str, value: str) -> str:
    return "~".join((_CONTEXT, category, f"SCT^{value}^{name}", "^^", _REGIONS, "^^", "^^"))
