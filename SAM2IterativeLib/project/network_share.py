"""Does a folder lie on a network share? File locks may not reach across computers there."""

from __future__ import annotations

import sys
from pathlib import Path

_KINDS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "afs", "fuse.sshfs", "9p", "ceph", "lustre", "beegfs", "glusterfs"}


def is_network_share(folder: Path) -> bool:
    """True where the operating system says so; False where it does not, or where it cannot be asked."""
    if sys.platform == "win32":
        import ctypes

        return folder.drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(f"{folder.drive}\\") == 4
    mounts = Path("/proc/mounts")
    if not mounts.is_file():
        return False
    return kind_of_mount(folder.resolve(), mounts.read_text(errors="replace")) in _KINDS


def kind_of_mount(folder: Path, mounts: str) -> str:
    """The file system of the innermost mount that holds ``folder``, from the text of /proc/mounts."""
    points = [(Path(parts[1].replace("\\040", " ")), parts[2]) for line in mounts.splitlines() if len(parts := line.split()) > 2]
    holding = [(len(point.parts), kind) for point, kind in points if point in (folder, *folder.parents)]
    return max(holding)[1] if holding else ""
