"""Public data sets that can be downloaded. Slicer reads this at every start, so it imports nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicSet:
    """A public data set: where it comes from and how it is checked."""

    name: str
    url: str
    file: str
    checksum: str
    megabytes: int
    about: str


HIPPOCAMPUS = PublicSet(
    name="SAM2IterativeHippocampus",
    url="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
    file="Task04_Hippocampus.tar",
    checksum="SHA256:282d808a3e84e5a52f090d9dd4c0b0057b94a6bd51ad41569aef5ff303287771",
    megabytes=28,
    about="Medical Segmentation Decathlon, Task 4: hippocampus in MR, 2 labels. Licence CC BY-SA 4.0.",
)
