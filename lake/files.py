"""Writing files so that a reader sees the old one or the new one, whatever happens in between."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import xxhash

from tickstate.lake.remote import RemotePath
from tickstate.lake.store import SETTLED, Place

TEMPORARY = ".tmp-"
"""Files of this prefix are unfinished: readers skip them, and the next writer of the place removes them."""

UPLOADS = "tickstate-upload-"
"""Folders of this prefix, in the system's folder for temporary files, hold what is being written to object stores."""

_open: set[Path] = set()
"""Temporary files that this process is writing now, in any of its threads."""

hook: Callable[[str], None] | None = None
"""Called with the name of each step of a commit, for tests that end the process there."""


def step(name: str) -> None:
    """Mark a named step of a commit."""
    if hook is not None:
        hook(name)


@contextmanager
def replacing(path: Place, label: str, beside: Place | None = None) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well what is there becomes ``path``, durably.

    Temporary file in the same folder, fsync, ``os.replace``, fsync of the folder; in an object store: temporary file
    of this machine, one upload. When the block fails, or the disk or the store does, the old file stays and the
    temporary one goes. ``beside``: the record of what is replaced, whose time must stay behind.
    """
    temporary = _begin_local(path) if isinstance(path, Path) else _begin_upload(path)
    _open.add(temporary)
    try:
        step(f"{label}:begin")
        yield temporary
        step(f"{label}:written")
        if isinstance(path, Path):
            _put_local(temporary, path, label)
        else:
            if beside is not None:
                _outlast(beside)
            path.upload(temporary)
            step(f"{label}:replaced")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _open.discard(temporary)
        if not isinstance(path, Path):
            shutil.rmtree(temporary.parent, ignore_errors=True)


def _begin_local(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    return path.with_name(f"{TEMPORARY}{_host()}-{os.getpid()}-{path.name}")


def _put_local(temporary: Path, path: Path, label: str) -> None:
    _fsync(temporary)
    step(f"{label}:synced")
    os.replace(temporary, path)
    step(f"{label}:replaced")
    _fsync(path.parent)
    step(f"{label}:durable")


def _outlast(record: Place) -> None:
    """Wait until what is written now has a later time than a record: object stores keep times in seconds.

    Else a run that dies between data and record might leave both with the same second, and look complete.
    """
    with suppress(FileNotFoundError):
        age = time.time_ns() - record.stat().st_mtime_ns
        time.sleep(max(0, min(SETTLED - age, SETTLED)) / 1e9)


def _begin_upload(path: RemotePath) -> Path:
    _clear_uploads(os.getpid())
    return Path(tempfile.mkdtemp(prefix=f"{UPLOADS}{_host()}-{os.getpid()}-")) / path.name


@cache
def _clear_uploads(process: int) -> None:
    """Remove, once a process, what processes of this host that were killed have not uploaded."""
    for left in Path(tempfile.gettempdir()).glob(f"{UPLOADS}{_host()}-*"):
        if not _alive(left.name.removeprefix(f"{UPLOADS}{_host()}-").partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)


def write_bytes(path: Place, data: bytes, label: str) -> None:
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
