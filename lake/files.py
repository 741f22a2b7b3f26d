"""Writing files so that a reader sees the old one or the new one, whatever happens in between."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import xxhash

TEMPORARY = ".tmp-"
"""Files of this prefix are unfinished: readers skip them, and the next writer of the place removes them."""

_open: set[Path] = set()
"""Temporary files that this process is writing now, in any of its threads."""

hook: Callable[[str], None] | None = None
"""Called with the name of each step of a commit, for tests that end the process there."""


def step(name: str) -> None:
    """Mark a named step of a commit."""
    if hook is not None:
        hook(name)


@contextmanager
def replacing(path: Path, label: str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well it becomes ``path``, durably.

    Temporary file in the same folder, fsync, ``os.replace``, fsync of the folder. When the block fails, or
    the disk does, the old file stays and the temporary one goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{_host()}-{os.getpid()}-{path.name}")
    _open.add(temporary)
    try:
        step(f"{label}:begin")
        yield temporary
        step(f"{label}:written")
        _fsync(temporary)
        step(f"{label}:synced")
        os.replace(temporary, path)
        step(f"{label}:replaced")
        _fsync(path.parent)
        step(f"{label}:durable")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _open.discard(temporary)


def write_bytes(path: Path, data: bytes, label: str) -> None:
    """Replace a small file."""
    with replacing(path, label) as temporary:
        temporary.write_bytes(data)


def remove_leftovers(folder: Path) -> int:
    """Remove temporary files that a killed process of this host left in a folder; returns how many."""
    count = 0
    for path in folder.glob(f"{TEMPORARY}{_host()}-*"):
        pid = path.name.removeprefix(f"{TEMPORARY}{_host()}-").partition("-")[0]
        if path not in _open and not _alive(pid):
            path.unlink(missing_ok=True)
            count += 1
    return count


def _alive(pid: str) -> bool:
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: str) -> bool:
    """Whether a process has ended and only waits to be reaped: in a container nobody may ever do so."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return False


@cache
def _host() -> str:
    """A short name of this machine: process numbers mean something on their own host only."""
    return xxhash.xxh3_64_hexdigest(platform.node().encode())[:8]


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
