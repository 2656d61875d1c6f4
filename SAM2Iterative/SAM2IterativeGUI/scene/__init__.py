"""A case of the project as nodes in Slicer's scene. Everything here knows MRML and nothing knows widgets.

``CaseScene`` is the one that panels use; it is made of

- ``ownership``: which nodes are ours, so that the person's own are never touched;
- ``volumes``: the image and its grid;
- ``segmentations``: label maps as segmentations and back, status, locks, reviewer;
- ``uncertainty``: the overlay with its colours and legend;
- ``prompt_markups``: key frames and prompts as markups;
- ``slices``: what the slice views show, and where they stand.

Nodes are found by an attribute each time and never remembered, so a closed scene leaves nothing that points nowhere.
"""

from __future__ import annotations

from .case_scene import LAYERS, CaseScene, Layer
from .segmentations import Status

__all__ = ["LAYERS", "CaseScene", "Layer", "Status"]
