"""Messages cross a pipe unchanged, and nothing else gets through."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from SAM2IterativeLib import messages
from SAM2IterativeLib.messages import Message, MessageError, from_line, to_line

EXAMPLES = [
    messages.RunStarted(3, 12, "CPU", stages=("training", "coarse")),
    messages.StageStarted(0, "predict", None, 0, 12),
    messages.StageFinished(1, "propagate", "case ü", 1.5),
    messages.Progress(1, "train", 0.25, None, "half way"),
    messages.RoundFinished(1, {"dice": 0.8, "per_class": {"1": [1, 2]}}),
    messages.CaseSetAside("x", "why"),
    messages.RunFailed("what", "DataError", "details\nin lines"),
    messages.PropagateCorrection("p", "c", "cache/x.nrrd", (3, 4)),
    messages.Needs("CPU", None, 5, 10**12, 1, 2, None, ("a", "b")),
    messages.FolderPredicted(2, {"x.nii.gz": "why"}, 1.5),
    messages.WorkerEnded(False, "why", "lines"),
    messages.StopRun(),
    messages.Hello("0.1.0", 123),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_round_trip(message: Message) -> None:
    line = to_line(message)
    assert "\n" not in line
    assert from_line(line) == message


def test_every_kind_has_plain_fields() -> None:
    """A new message with a field that JSON cannot carry would fail here and not in a clinic."""
    for kind in Message.kinds.values():
        for field in dataclasses.fields(kind):
            assert str(field.type).split("[")[0] in {
                "str",
                "int",
                "float",
                "bool",
                "dict",
                "tuple",
                "str | None",
                "int | None",
                "float | None",
            }


def test_numbers_that_are_none_become_null() -> None:
    line = to_line(messages.RoundFinished(1, {"a": float("nan"), "b": np.float32(0.5), "c": np.int64(3), "d": (float("inf"),)}))
    assert json.loads(line)["numbers"] == {"a": None, "b": 0.5, "c": 3, "d": [None]}


def _with(**changes: object) -> str:
    return json.dumps({"protocol": 1, "type": "CaseSetAside", "case": "x", "sentence": "y"} | changes)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "not a message"),
        ("[1]", "protocol 1"),
        (_with(protocol=2), "protocol 1"),
        (_with(type="Unheard"), "unknown type"),
        (_with(extra=1), r"unknown \['extra'\]"),
        (_with(case=5), "must be str, not 5"),
        (json.dumps({"protocol": 1, "type": "CaseSetAside", "case": "x"}), r"missing \['sentence'\]"),
        (json.dumps({"protocol": 1, "type": "Heartbeat", "seconds": True}), "must be float"),
        (
            json.dumps({"protocol": 1, "type": "StageStarted", "round": 1.5, "stage": "", "case": None, "done": 0, "total": 1}),
            "must be int",
        ),
    ],
)
def test_strict(line: str, says: str) -> None:
    with pytest.raises(MessageError, match=says):
        from_line(line)
