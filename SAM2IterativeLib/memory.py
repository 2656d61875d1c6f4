"""How much memory this computer has, and how much this process has taken at most; None where the system does not tell."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def computer_memory() -> tuple[int | None, int | None]:
    """Bytes in all, and bytes that a program can still get without pushing others out."""
    if sys.platform == "win32":
        status = _MemoryStatus()
        status.length = ctypes.sizeof(status)
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.total), int(status.free)
    information = Path("/proc/meminfo")
    if information.is_file():
        found = dict(re.findall(r"(\w+):\s+(\d+) kB", information.read_text()))
        total, free = (int(found[name]) * 1024 if name in found else None for name in ("MemTotal", "MemAvailable"))
        return total, free
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None


def peak_of_process() -> int | None:
    """Bytes that this process held at most so far."""
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    if status.is_file():  # Linux counts the parent's memory into getrusage
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found[1]) * 1024 if found else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


if sys.platform == "win32":
    import ctypes

    class _MemoryStatus(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("free", ctypes.c_ulonglong),
            ("others", ctypes.c_ulonglong * 5),
        )

else:
    import resource
