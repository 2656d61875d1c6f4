"""What is to be seen of a case, read from MRML as a person would see it."""

from __future__ import annotations

from typing import Any


def uncertainty_seen() -> bool:
    """Whether a slice view shows the uncertainty map."""
    from SAM2IterativeGUI.scene import ownership, slices, uncertainty

    node = ownership.the_owned(uncertainty.PART)
    return node is not None and any(layers.foreground == node.GetID() for layers in slices.layers_of_views().values())


def prompts_seen() -> bool:
    """Whether the prompts are to be seen."""
    from SAM2IterativeGUI.scene import prompt_markups

    return prompt_markups.visibility()


def reviewer_of(node: Any, value: int) -> str:
    """Who decided about the segment of a label value, as its tag says; "" for nobody."""
    from SAM2IterativeGUI.scene import segmentations

    return _tag(node, value, segmentations.REVIEWER)


def marked_as_locked(node: Any, value: int) -> bool:
    """Whether the segment of a label value bears the tag of a locked one."""
    from SAM2IterativeGUI.scene import segmentations

    return bool(_tag(node, value, segmentations.LOCKED))


def _tag(node: Any, value: int, name: str) -> str:
    from SAM2IterativeGUI.scene.segmentations import segment_id_of, tag

    return tag(node.GetSegmentation().GetSegment(segment_id_of(node, value)), name)
