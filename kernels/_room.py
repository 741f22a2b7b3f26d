"""Memory for large blocks that is used again.

A run makes about 1.5 kB of columns a row and lets go of them a moment later. Asking the system for that memory each
time costs more than many a kernel: every page of it is zeroed and mapped anew, 0.3 us a row.
"""

from __future__ import annotations

import sys
import threading

import numpy as np

LEAST = 1 << 20
"""Bytes below which an array is not worth keeping."""
IDLE = 32 << 20
"""Bytes that are kept at most while nobody uses them."""

_lock = threading.Lock()
_kept: list[np.ndarray] = []
_counted = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()


def empty(rows: int, width: int) -> np.ndarray:
    """An uninitialised array of doubles (rows, width), in memory that no array and no Arrow buffer uses any more."""
    size = rows * width
    if 8 * size < LEAST or not _counted:
        return np.empty((rows, width))
    with _lock:
        found = min(
            (b for b in map(_free, range(len(_kept))) if b is not None and b.size >= size), key=len, default=None
        )
        if found is None or found.size > 2 * size:
            found = np.empty(size)
            _kept.append(found)
            _drop_idle()
        return found[:size].reshape(rows, width)


def _references(arrays: list[np.ndarray], i: int) -> int:
    """References to an array in a list: the list's, those of every view of it (numpy's or Arrow's), the call's own."""
    return sys.getrefcount(arrays[i])


_ALONE = _references([np.empty(0)], 0)
"""What ``_references`` says where the list alone holds it: how many are the call's own is the interpreter's matter."""


def _free(i: int) -> np.ndarray | None:
    """The i-th kept array where nobody else holds it."""
    return _kept[i] if _references(_kept, i) == _ALONE else None


def _drop_idle() -> None:
    """Let go of the oldest arrays that nobody uses, as far as they are too much together."""
    idle = [i for i in range(len(_kept)) if _free(i) is not None]
    total = sum(_kept[i].nbytes for i in idle)
    gone = set()
    for i in idle:
        if total > IDLE:
            total -= _kept[i].nbytes
            gone.add(i)
    _kept[:] = [b for i, b in enumerate(_kept) if i not in gone]
