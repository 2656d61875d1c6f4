from __future__ import annotations

import pytest

from SAM2IterativeLib.vocabulary import TERMS, legend, review_state
from SAM2IterativeLib.wording import counted, duration, listed, number, rounds_in_words


def test_numbers_and_lists_in_words() -> None:
    assert (number(None), number(0.12345), number(3, 1)) == ("–", "0.123", "3.0")
    assert (listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])) == ("", "a", "a and b", "a, b and c")
    assert (counted(1, "case"), counted(0, "case")) == ("1 case", "0 cases")
    assert [duration(seconds) for seconds in (40, 200, 7500)] == ["40 s", "3 min", "2 h 05 min"]


@pytest.mark.parametrize(
    ("rounds", "words"),
    [([3], "round 3"), ([0, 1], "rounds 0 and 1"), ([0, 1, 2], "rounds 0 to 2"), ([0, 1, 4], "rounds 0, 1 and 4")],
)
def test_rounds_in_words(rounds: list[int], words: str) -> None:
    assert rounds_in_words(rounds) == words


def test_a_number_has_one_name_and_one_number_of_decimals() -> None:
    assert legend("agreement", "stability").startswith("Agreement: Dice between the network's masks and SAM2's; unchanged: Dice ")
    assert TERMS["key_frames"].text(14.2) == "14.2" and TERMS["stability"].text(None) == "–"
    assert len({term.name for term in TERMS.values()}) == len(TERMS)


def test_a_case_waits_only_for_what_was_proposed() -> None:
    assert review_state("waiting", None) == "no proposal yet"
    assert (review_state("waiting", 0), review_state("corrected", None)) == ("waiting", "corrected")
