"""Files that are either whole or not there: atomic writes, hashes, names that stay inside a folder.

Why so much care: a NIfTI file written past a full disk raises nothing, and a run may be killed at any moment. Nothing in a
project is ever seen half written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DataError, ProjectError, ResourceError

try:
    import resource
except ImportError:  # Windows, whose limit is 8192 and does not count mapped files
    resource = None  # type: ignore[assignment]

IMAGE_SUFFIXES = (".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

_TEMPORARY = ".writing-"
_ACCESS_DENIED = 5
_BUSY_ON_WINDOWS = (_ACCESS_DENIED, 32, 33, 1224)  # sharing or lock violation, mapped into memory: a scanner or a sync client reads it
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_WRITTEN_SHORT = re.compile(r"^\d+ requested and \d+ written")
"""How NumPy says, without an error number, that the disk is full."""
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_OWN_FILES, _MOST_FILES = 256, 10240
"""macOS allows no more than the second, whatever it says."""
_LOCAL_CODE_PAGE = os.name == "nt"
_DATA_FILE = re.compile(rb"^(?:ElementDataFile *=|data ?file *:) *([^\r\n]*[^\s])", re.IGNORECASE | re.MULTILINE)
"""Where the detached headers of MetaImage and NRRD name their data."""


def suffix_of(path: str | Path) -> str:
    """The image suffix in lower case, ``.nii.gz`` and ``.seg.nrrd`` whole; the plain last suffix for other files."""
    name = Path(path).name.lower()
    return next((s for s in IMAGE_SUFFIXES if name.endswith(s)), Path(name).suffix)


def stem_of(path: str | Path) -> str:
    """The file's name without its image suffix: ``a.b.nii.gz`` gives ``a.b``."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))] or name


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary name in the same folder; when the block ends without an error, flush it and rename it to ``path``.

    The temporary name keeps ``path``'s suffix, so that writers that choose the format by suffix do the right thing. The file may be read
    by whom the user's umask says, also where a writer (safetensors) keeps it to its owner: projects are shared.

    Raises:
        ResourceError: the disk is full or the folder may not be written; an older ``path`` is still whole.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            temporary.unlink()  # a writer that writes nothing must not leave an empty file
            yield temporary
            if temporary.stat().st_mode != mode:
                temporary.chmod(mode)
            flush(temporary)
            replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A new name beside ``path`` with its suffix, by which ``sweep`` knows a file that was never finished."""
    return path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex[:8]}-{path.name}")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` atomically, see ``atomic_write``."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write UTF-8 text with line feeds atomically, see ``atomic_write``."""
    write_bytes(path, content.encode("utf-8"))


def flush(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def replace(source: Path, target: Path, attempts: int = 8) -> None:
    """Rename over ``target``; on Windows wait and retry while another program holds it."""
    for attempt in range(attempts):
        try:
            os.replace(source, target)
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in _BUSY_ON_WINDOWS or attempt == attempts - 1:
                raise
            time.sleep(0.05 * 2**attempt)


def require_empty(folder: Path) -> None:
    """Raise ProjectError if a folder that is to be filled holds something; it need not exist."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ProjectError("the folder is not empty; nothing is overwritten.", where=folder.name, cure="Choose a new folder.")


def is_temporary(path: Path) -> bool:
    """Whether a file is one that ``atomic_write`` had not finished."""
    return path.name.startswith(_TEMPORARY)


def sweep(folder: Path) -> int:
    """Remove what interrupted writes left below ``folder``; returns how many files. Only the project's writer may call it."""
    leftovers = [p for p in folder.rglob(f"{_TEMPORARY}*") if p.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def require_space(folder: str | Path, needed: int) -> None:
    """Raise ResourceError unless ``needed`` bytes are free on the disk of ``folder`` (or of its nearest existing parent)."""
    existing = next(p for p in (Path(folder).absolute(), *Path(folder).absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ResourceError(
            f"the disk has {free / 1e6:,.1f} MB free, {needed / 1e6:,.1f} MB are needed.", cure="Free some space, then try again."
        )


def allow_open_files(count: int) -> None:
    """Let this process have ``count`` files open besides its own, where the system does: macOS begins with 256 in all."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(count + _OWN_FILES, _MOST_FILES, *([] if hard == resource.RLIM_INFINITY else [hard]))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def resolve_under(root: str | Path, name: str) -> Path:
    """``root / name`` as an absolute path that certainly lies below ``root``.

    Raises:
        DataError: the name is absolute, climbs out with "..", or leads out through a link.
    """
    base = Path(root).resolve()
    path = (base / name).resolve()
    if Path(name).is_absolute() or base not in (path, *path.parents):
        raise DataError(f"the name {name!r} leads out of its folder.", cure="Only names inside the folder are read.")
    return path


@contextmanager
def path_for_itk(path: Path, *, output: bool = False) -> Iterator[Path]:
    """``path`` itself, or on Windows an ASCII-named stand-in, since ITK's NIfTI code opens names in the local code page."""
    if not _LOCAL_CODE_PAGE or str(path).isascii():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / f"file{suffix_of(path)}"
        if not output:
            _copy_image(path, stand_in)
        yield stand_in
        if output:
            shutil.copyfile(stand_in, path)


def _copy_image(path: Path, stand_in: Path) -> None:
    """Copy an image file; with a detached header its data file too, which the copy then names in ASCII.

    Whether that file may be read is ``intake``'s to say; what is not there is left for ITK to complain of.
    """
    shutil.copyfile(path, stand_in)
    header = path.read_bytes() if suffix_of(path) in (".mhd", ".nhdr") else b""
    named = _DATA_FILE.search(header)
    data = path.parent / named[1].decode("utf-8", "replace") if named else path.parent
    if named and data.is_file():
        shutil.copyfile(data, stand_in.with_name("data.raw"))
        stand_in.write_bytes(header[: named.start(1)] + b"data.raw" + header[named.end(1) :])


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's "no space", "not permitted" and Windows' "in use" into sentences.

    Raises:
        ResourceError: the disk is full, the folder may not be written to, or another program holds the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or _WRITTEN_SHORT.search(str(error)):
            raise ResourceError(
                "the disk is full, the file was not written.",
                where=path.name,
                cure="Free some space; the same action then goes on.",
            ) from error
        if _is_held(error):
            cure = "Close it there, then run again; if it is open nowhere, lift its write protection."
            raise ResourceError("another program holds this file open.", where=path.name, cure=cure) from error
        if error.errno in _FORBIDDEN:
            raise ResourceError(
                "the folder may not be written to.", where=path.name, cure="Choose a folder you own, or ask for write permission."
            ) from error
        raise


def _is_held(error: OSError) -> bool:
    """Whether Windows refuses since another program has the file open.

    "Access denied" counts only of a rename (it alone names two files): the folder took a new file just before, so it may be written to.
    """
    code = getattr(error, "winerror", None)
    return code in _BUSY_ON_WINDOWS and (code != _ACCESS_DENIED or error.filename2 is not None)
