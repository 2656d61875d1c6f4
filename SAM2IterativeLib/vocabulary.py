"""What the numbers of a project are called and what they mean: the same words in the terminal, the report and the Slicer module."""

from __future__ import annotations

from dataclasses import dataclass

from .wording import number


@dataclass(frozen=True)
class Term:
    """A number's name in tables, what it means in half a sentence, and how many decimals are worth showing."""

    name: str
    meaning: str
    digits: int = 3

    def text(self, value: float | None) -> str:
        """The number as shown; a dash where there is none."""
        return number(value, self.digits)


TERMS = {
    "uncertainty": Term("uncertainty", "how much the network doubts, in and around the structures, from 0 (sure) to 1"),
    "agreement": Term("agreement", "Dice between the network's masks and SAM2's"),
    "stability": Term("unchanged", "Dice between this round's labels and those of the round before"),
    "key_frames": Term("key frames", "prompted slices a case, summed over the labels", 1),
    "abstained_classes": Term("abstained", "labels a case that SAM2 was not asked about", 2),
    "foundation_share": Term("SAM2's share", "how much of a pseudo-label was its answer, the rest the network's", 2),
    "decided_cases": Term("decided", "cases that people had decided when the round ended", 0),
    "validation_cases": Term("scored", "validation cases of which the Dice is the mean; rounds with other cases are no comparison", 0),
    "dice": Term("Dice", "overlap with the true labels, from 0 to 1; a missed structure counts 0"),
    "hd95_mm": Term("HD95", "distance in mm within which 95 % of the borders lie; a missed structure counts with the image's diagonal", 1),
    "missed": Term("missed", "structures that were not found at all", 0),
    "finds_errors": Term(
        "finds errors", "rank correlation (Spearman) of a slice's uncertainty with its error: 1 best, 0 the uncertainty says nothing", 2
    ),
}
"""By the names that the journal and the evaluation use."""

LABEL_MAP_NAMES = {"coarse": "coarse mask", "propagated": "propagated", "pseudo_label": "pseudo-label"}
"""The label maps of a round, by their names in ``LABEL_MAPS``; "Dice" alone always means the pseudo-label, which is what people review."""


@dataclass(frozen=True)
class MethodWords:
    """What a report says of a method's doubt, its prompts and its label maps, in half a sentence each; and the settings that it ignores."""

    prompted_slice: str = "prompted slice"
    uncertainty: str = "where that network wavers"
    prompts: str = "what SAM2 was told"
    propagated: str = "SAM2’s answer"
    pseudo_label: str = "what was made of both"
    not_asked: str = "SAM2 is not asked about a label that the network sees nowhere."
    ignored: tuple[str, ...] = ()


_METHOD_WORDS = {
    "ifdl": MethodWords(
        prompted_slice="key frame",
        uncertainty="where that network wavers, also between rounds, and disagrees with SAM2",
        prompts="what SAM2 was told on a key frame",
        propagated="SAM2’s answer, carried from the key frames through all slices",
        pseudo_label="both combined",
        not_asked="SAM2 is not asked about a label where no slice was sure enough for a prompt, and either no labelled case showed it or "
        "the network sees it nowhere.",
    ),
    "knowledge_mining": MethodWords(
        prompts="what SAM2 was told of each piece of the coarse mask",
        propagated="SAM2’s answers, slice by slice",
        pseudo_label="SAM2’s answer where it fits the coarse mask’s piece, else that piece",
        not_asked="SAM2 is not asked about a label of which the network sees no piece that is large enough.",
        ignored=("memory.mode", "key_frames.count", "foundation.adaptation_steps"),
    ),
}


def method_words(method: str) -> MethodWords:
    """The words of a method; general ones where it has none of its own."""
    return _METHOD_WORDS.get(method, MethodWords())


def legend(*keys: str) -> str:
    """What these terms mean, in one sentence: "Agreement: ...; unchanged: ..."."""
    text = "; ".join(f"{TERMS[key].name}: {TERMS[key].meaning}" for key in keys)
    return f"{text[:1].upper()}{text[1:]}."


def review_state(status: str, round: int | None) -> str:
    """A case's review status in words: a case waits only once a round proposed something."""
    return "no proposal yet" if status == "waiting" and round is None else status
