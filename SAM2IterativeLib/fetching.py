"""Fetches one file of weights; as ``python fetching.py ADDRESS FILE SHA256 BYTES`` in a process of its own, so that Slicer stays usable.

What came so far lies beside the file under ``.part``, whose size is the progress; the file itself appears only when it is whole and
checked: against its checksum, or where none is published, for being a checkpoint at all. A download that was cut off goes on where it
stopped if the address can do that and a checksum proves the result. The process ends when the other side closes its standard input.
Needs nothing beyond Python, not even this package.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FETCHED, NOT_REACHED, NOT_THE_PUBLISHED_ONE, NO_CHECKPOINT = 0, 3, 4, 5
"""Exit codes; with the second, the last line on standard output says why."""
LARGEST = 4_000_000_000
"""Bytes; no published file is larger, and an endless one must not fill the disk."""
_CONTAINER = b"PK"
"""A file that torch.save wrote begins with it; a web page that came in its place does not."""
_BLOCK = 1 << 20
_PARTIAL, _NO_SUCH_RANGE = 206, 416
_TIMEOUT = 60.0
_SCHEMES = ("https", "file")


def part_of(file: Path) -> Path:
    """Where a file lies while it arrives."""
    return file.with_name(f"{file.name}.part")


def fetch(address: str, file: Path, sha256: str = "", size: int = 0) -> int:
    """Fetch ``address`` as ``file``.

    Args:
        sha256, size: of the published file; "" and 0 where not published.

    Returns:
        ``FETCHED``; or ``NOT_THE_PUBLISHED_ONE``, or without a checksum ``NO_CHECKPOINT``, in which case nothing is kept.

    Raises:
        OSError: no connection, or the disk is full; what came is kept if it can be continued.
        ValueError: the address is neither https nor a file, or more came than was published.
    """
    part = part_of(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if not sha256:
        part.unlink(missing_ok=True)  # two halves of different files could not be told
    _receive(address, part, size or LARGEST)
    if (size and part.stat().st_size != size) or (sha256 and _sha256_of(part) != sha256):
        part.unlink()
        return NOT_THE_PUBLISHED_ONE
    if not sha256 and not _begins_as_checkpoint(part):
        part.unlink()
        return NO_CHECKPOINT
    os.replace(part, file)
    return FETCHED


class _SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to an address that nobody vouches for."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_safe(newurl, ("https",))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(address: str, schemes: Sequence[str] = _SCHEMES) -> None:
    if address.partition(":")[0].lower() not in schemes:
        raise ValueError(f"{address} is no https address")


def _receive(address: str, part: Path, largest: int) -> None:
    _require_safe(address)
    there = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "SAM2Iterative"})
    if 0 < there < largest and address.lower().startswith("https:"):
        request.add_header("Range", f"bytes={there}-")
    try:
        answer = urllib.request.build_opener(_SameSafety).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != _NO_SUCH_RANGE or not there:
            raise
        part.unlink()  # it is as long as the file, or longer: begin anew
        _receive(address, part, largest)
        return
    with answer:
        _write(answer, part, goes_on=getattr(answer, "status", None) == _PARTIAL, largest=largest)


def _write(answer: Any, part: Path, goes_on: bool, largest: int) -> None:
    announced = int(answer.headers.get("Content-Length") or 0)
    with open(part, "ab" if goes_on else "wb") as out:
        announced += out.tell() if announced else 0
        while block := answer.read(_BLOCK):
            if out.tell() + len(block) > largest:
                raise ValueError("more came than was published")
            out.write(block)
        if out.tell() < announced:
            raise ConnectionError("the connection was cut off")
        out.flush()
        os.fsync(out.fileno())


def _begins_as_checkpoint(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_CONTAINER)) == _CONTAINER


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _end_with_parent() -> None:
    """Slicer was closed or died."""
    sys.stdin.buffer.read()
    os._exit(NOT_REACHED)


def main(arguments: Sequence[str]) -> int:
    """The process."""
    address, file, sha256, size = arguments
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        return fetch(address, Path(file), sha256, int(size))
    except urllib.error.URLError as error:
        print(error.reason if not isinstance(error, urllib.error.HTTPError) else f"{error.code} {error.reason}")
    except (OSError, ValueError) as error:
        print(error.strerror if isinstance(error, OSError) and error.strerror else error)
    return NOT_REACHED


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # the thread that waits for the other side would hold the end up
