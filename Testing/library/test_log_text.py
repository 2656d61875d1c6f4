"""No folder of this computer leaves it in a log or a message."""

from __future__ import annotations

import pytest

from SAM2IterativeLib.log_text import traceback_text, without_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('File "/home/ada/My Patients/x.py", line 3', 'File "x.py", line 3'),
        ("[Errno 2] No such file: '/data/Jane Doe/scan 1.nii.gz'", "[Errno 2] No such file: 'scan 1.nii.gz'"),
        ("cannot open /mnt/share/jane/scan.nii: denied", "cannot open scan.nii: denied"),
        (r"cannot open C:\Users\jane\scan.nii: denied", "cannot open scan.nii: denied"),
        (r'"C:\Users\Jane Doe\scan.nii"', '"scan.nii"'),
        (r"'\\server\share\jane\scan.nii'", "'scan.nii'"),
        ("rounds/1/case_2/coarse.nii.gz", "rounds/1/case_2/coarse.nii.gz"),
        ("3/4 of the cases, 5 mm/s, https://example.org/a/b", "3/4 of the cases, 5 mm/s, https://example.org/a/b"),
    ],
)
def test_absolute_paths_are_cut(text: str, expected: str) -> None:
    assert without_paths(text) == expected


def test_a_traceback_keeps_what_helps() -> None:
    try:
        try:
            raise FileNotFoundError(2, "No such file", "/data/jane/scan.nii")
        except FileNotFoundError as error:
            raise ValueError("no image") from error
    except ValueError as error:
        text = traceback_text(error)
    assert "test_log_text.py" in text and "ValueError: no image" in text and "'scan.nii'" in text
    assert "jane" not in text and "/test_log_text.py" not in text
