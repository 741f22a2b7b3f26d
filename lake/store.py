"""Places: a folder of this machine (``pathlib.Path``) or a prefix in a bucket (``RemotePath``), one code for both.

A place has ``/``, ``name``, ``parent``, ``exists``, ``is_dir``, ``is_file``, ``stat``, ``read_bytes`` and ``unlink``;
what is done otherwise for the one and the other stands here. ``str`` of a place is what ``place`` takes back.
"""

from __future__ import annotations

import errno
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from tickstate.lake.errors import LakeError, StoreError
from tickstate.lake.remote import (
    AT_ONCE,
    SCHEME,
    SECOND,
    SETTLED_REMOTE,
    RemotePath,
    Stat,
    View,
    asking,
    fault_of,
    persistent,
    remote_path,
)

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Place: TypeAlias = Path | RemotePath
A = TypeVar("A")
B = TypeVar("B")

SETTLED = 2_000_000_000
"""Nanoseconds after which a file's modification time is believed to show every later change."""
DEEPEST = 8
"""Folders below a channel that are looked into: a loop of links ends there."""


def place(given: str | os.PathLike[str] | RemotePath) -> Place:
    """A place as people write it: a path, or ``s3://BUCKET/PREFIX``.

    >>> place("s3://bucket/lake/") / "silver", place("lake").name
    (RemotePath('s3://bucket/lake/silver'), 'lake')
    """
    if isinstance(given, RemotePath):
        return given
    text = os.fspath(given)
    if text.startswith(SCHEME):
        return remote_path(text)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)
    if scheme:
        fix = "give s3:// as a text: a Path makes one / of two" if scheme[1].lower() == "s3" else ""
        raise LakeError(f"{text!r} is no place", expected="a local path, or s3://BUCKET/PREFIX", fix=fix)
    return Path(text)


def is_remote(path: Place | str) -> bool:
    """Whether a place, or a segment's path, is in an object store."""
    return isinstance(path, RemotePath) or (isinstance(path, str) and path.startswith(SCHEME))


def snapshot(root: Place) -> Place:
    """The place as it is now, for one plan: of a bucket, what lies in it is listed once, not asked for one by one."""
    return root.bound(View(root)) if isinstance(root, RemotePath) else root


def at_once(work: Callable[[A], B], items: Iterable[A], remote: bool) -> list[B]:
    """``work`` on each item, in order; on several at a time where each is a request that is waited for."""
    items = list(items)
    if not remote or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(AT_ONCE, len(items)), "tickstate-ask") as threads:
        return list(threads.map(work, items))


def folders(root: Place) -> list[str]:
    """Names of the folders in a place, those aside that begin with ``.`` or ``_``."""
    if isinstance(root, RemotePath):
        names = root.folders()
    else:
        names = [p.name for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
    return sorted(n for n in names if not n.startswith((".", "_")))


def walk(folder: Place, suffix: str = ".parquet") -> Iterator[tuple[str, str, Any]]:
    """(relative path, path, stat) of every file with a suffix below a folder, in the order of the relative paths; no
    stat where it is no regular file.

    Hidden names, and names that begin with ``_``, are work in progress. Of a bucket: one listing, and a HEAD for the
    ETag of each object so young that its time alone, in whole seconds, does not tell it from the next of its name.
    """
    if not isinstance(folder, RemotePath):
        yield from _walk_local(folder, suffix)
        return
    found = [(relative, stat) for relative, stat in folder.walk() if relative.endswith(suffix) and _is_shown(relative)]
    found.sort(key=itemgetter(0))
    since = time.time_ns() - SETTLED_REMOTE
    young = [relative for relative, stat in found if stat.st_mtime_ns >= since]
    exact = dict(zip(young, at_once(lambda r: _stat(folder / r), young, remote=True), strict=True))
    for relative, stat in found:
        if relative not in exact or exact[relative] is not None:
            yield relative, str(folder / relative), exact.get(relative, stat)


def _is_shown(relative: str) -> bool:
    parts = relative.split("/")
    return len(parts) <= DEEPEST + 1 and not any(p.startswith((".", "_")) for p in parts)


def _stat(path: RemotePath) -> Stat | None:
    """None where it went while it was listed."""
    with suppress(FileNotFoundError):
        return path.stat()
    return None


def modified_of(stat: Any) -> int:
    """When a file was modified (ns), as a key of caches. Where an ETag is known it takes the place of what the time
    of an object lacks, the part below a second."""
    etag = getattr(stat, "etag", "")
    return stat.st_mtime_ns + (1 + zlib.crc32(etag.encode()) % (SECOND - 1) if etag else 0)


def _walk_local(root: Path, suffix: str) -> Iterator[tuple[str, str, os.stat_result | None]]:
    """A folder is listed once and a file is asked once for its stat. Plans spend their time here: no ``Path`` is made,
    and no generator stands in another."""
    entries = _entries(root, "", suffix)
    if entries is None:
        yield "", str(root), None
        return
    below = [iter(entries)]
    while below:
        for relative, entry in below[-1]:
            if relative.endswith("/"):
                if len(below) > DEEPEST:
                    continue
                entries = _entries(entry.path, relative, suffix)
                if entries is not None:
                    below.append(iter(entries))
                    break
                yield relative.removesuffix("/"), entry.path, None
                continue
            try:
                yield relative, entry.path, entry.stat() if entry.is_file() else None
            except FileNotFoundError:
                continue  # it went while it was listed
            except OSError:
                yield relative, entry.path, None
        else:
            below.pop()


def _entries(folder: str | Path, prefix: str, suffix: str) -> list[tuple[str, os.DirEntry[str]]] | None:
    """The folders (they end in ``/``, which puts what they hold in its place) and files of one, by relative path.

    None where it cannot be listed. What cannot be looked at is there whatever its name: it may be a folder.
    """
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None
    found = []
    for entry in entries:
        name = entry.name
        if name.startswith((".", "_")):
            continue
        is_folder = _is_folder(entry)
        if is_folder:
            found.append((f"{prefix}{name}/", entry))
        elif is_folder is None or name.endswith(suffix):
            found.append((prefix + name, entry))
    found.sort(key=itemgetter(0))
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool | None:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, say
        return None


def stat_of(path: Place) -> Any:
    """Size and time of a file, None where there is none: a link that leads to itself is none."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


@contextmanager
def open_bytes(path: Place) -> Iterator[Any]:
    """A binary file to seek in and read from."""
    if isinstance(path, Path):
        with open(path, "rb") as file:
            yield file
    else:
        with path.open() as file, asking(path):
            yield file


def open_parquet(path: Place | str) -> pq.ParquetFile:
    """Open a Parquet file, page checksums verified. In an object store its columns are read by ranges, side by side."""
    import pyarrow.parquet as pq

    if not is_remote(path):
        return pq.ParquetFile(path, page_checksum_verification=True)
    found = place(path)
    return pq.ParquetFile(found.open(), page_checksum_verification=True, pre_buffer=True)


@contextmanager
def reading(path: Place | str) -> Iterator[pq.ParquetFile]:
    """``open_parquet`` for a block; a store that fails in it is a ``StoreError``, whatever part of reading noticed."""
    try:
        with open_parquet(path) as file:
            yield file
    except OSError as error:
        fault = fault_at(error, path)
        if fault is None or fault is error:
            raise
        raise fault from error


def fault_at(error: BaseException, path: Place | str) -> StoreError | None:
    """What an error says of the store a place is in; None where it speaks of the file, and always of local ones."""
    return fault_of(error, path) if is_remote(path) else None


def without_fault(read: Callable[[], A], otherwise: A) -> A:
    """What is read, or ``otherwise`` where there is nothing to read; a store that fails is raised."""
    try:
        return persistent(read)
    except StoreError:
        raise
    except OSError:
        return otherwise


def copy(source: Place, target: Path) -> None:
    """Bring a file here."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        target.symlink_to(source.resolve())
    else:
        target.write_bytes(source.read_bytes())
