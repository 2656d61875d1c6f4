"""How weights are fetched: what it takes, what it refuses, and how it goes on after a cut."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from SAM2IterativeLib import fetching

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """In place of the internet: gives ``content``, from where it is asked to, and may stop early."""

    def __init__(self, content: bytes = CONTENT, stop_after: int | None = None) -> None:
        self.content, self.stop_after = content, stop_after
        self.asked: list[str | None] = []

    def open(self, request: urllib.request.Request, timeout: float) -> Any:
        wanted = request.get_header("Range")
        self.asked.append(wanted)
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = Message()
        if wanted and begin >= len(self.content):
            raise urllib.error.HTTPError(request.full_url, 416, "Range Not Satisfiable", headers, None)
        headers["Content-Length"] = str(len(self.content) - begin)
        answer: Any = io.BytesIO(self.content[begin : self.stop_after])
        answer.headers, answer.status = headers, 206 if wanted else 200
        return answer


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(server: Server) -> Server:
        monkeypatch.setattr(urllib.request, "build_opener", lambda *_handlers: server)
        return server

    return use


def test_what_was_cut_off_goes_on_where_it_stopped(serve: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights" / "w.pt"
    serve(Server(stop_after=5000))
    with pytest.raises(ConnectionError, match="cut off"):
        fetching.fetch("https://example.org/w.pt", file, SHA256, len(CONTENT))
    assert fetching.part_of(file).stat().st_size == 5000 and not file.exists()
    server = serve(Server())
    assert fetching.fetch("https://example.org/w.pt", file, SHA256, len(CONTENT)) == fetching.FETCHED
    assert server.asked == ["bytes=5000-"]
    assert file.read_bytes() == CONTENT and not fetching.part_of(file).exists()


def test_without_a_checksum_it_begins_anew(serve: Any, tmp_path: Path) -> None:
    fetching.part_of(tmp_path / "w.pt").write_bytes(b"of another file")
    server = serve(Server(b"PK" + CONTENT))
    assert fetching.fetch("https://example.org/w.pt", tmp_path / "w.pt") == fetching.FETCHED
    assert server.asked == [None] and (tmp_path / "w.pt").read_bytes() == b"PK" + CONTENT


@pytest.mark.parametrize("came", [b"<!DOCTYPE html><html>Sign in</html>", b""])
def test_without_a_checksum_it_must_at_least_be_a_checkpoint(serve: Any, tmp_path: Path, came: bytes) -> None:
    serve(Server(came))
    assert fetching.fetch("https://example.org/w.pt", tmp_path / "w.pt") == fetching.NO_CHECKPOINT
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_whole_already_is_no_dead_end(serve: Any, tmp_path: Path) -> None:
    fetching.part_of(tmp_path / "w.pt").write_bytes(CONTENT)
    server = serve(Server())
    assert fetching.fetch("https://example.org/w.pt", tmp_path / "w.pt", SHA256) == fetching.FETCHED
    assert server.asked == [f"bytes={len(CONTENT)}-", None]


def test_an_altered_file_does_not_stay(serve: Any, tmp_path: Path) -> None:
    serve(Server(b"\0" * len(CONTENT)))
    assert fetching.fetch("https://example.org/w.pt", tmp_path / "w.pt", SHA256, len(CONTENT)) == fetching.NOT_THE_PUBLISHED_ONE
    assert list(tmp_path.iterdir()) == []


def test_more_than_was_published_does_not_fill_the_disk(serve: Any, tmp_path: Path) -> None:
    serve(Server(CONTENT * 2))
    with pytest.raises(ValueError, match="more came"):
        fetching.fetch("https://example.org/w.pt", tmp_path / "w.pt", SHA256, len(CONTENT))
    assert not (tmp_path / "w.pt").exists()


@pytest.mark.parametrize("address", ["http://example.org/w.pt", "ftp://example.org/w.pt"])
def test_only_https(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValueError, match="no https address"):
        fetching.fetch(address, tmp_path / "w.pt")
    request = urllib.request.Request("https://example.org/w.pt")
    with pytest.raises(ValueError, match="no https address"):
        fetching._SameSafety().redirect_request(request, None, 302, "Found", {}, address)


def test_it_ends_with_the_one_who_started_it(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "never")  # opening it waits for ever
    command = [sys.executable, fetching.__file__, (tmp_path / "never").as_uri(), str(tmp_path / "w.pt"), "", "0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == fetching.NOT_REACHED
