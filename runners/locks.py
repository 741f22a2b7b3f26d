"""Two runners on one lake: a lock spares double work. Where it is lost, determinism keeps the result right."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash
from filelock import FileLock
from platformdirs import user_cache_path

from tickstate.lake.store import Place

SHARDS = 256
"""Lock files of a tier: a partition takes one by its hash, so that years of hours leave no litter of locks."""


@contextmanager
def partition_lock(
    root: Place, name: str, timeout: float = -1, before_waiting: Callable[[], object] = lambda: None
) -> Iterator[bool]:
    """Hold a partition of the tier ``root``; yields whether it had to be waited for.

    ``before_waiting``: called where somebody holds it. Who holds another one lets go of it there: two that each wait
    for what the other holds would wait for ever, and two partitions may share a lock.

    A bucket has no locks: runners of one user on one machine spare each other the work, those of several do it twice.

    Raises ``filelock.Timeout`` after ``timeout`` seconds.
    """
    shard = xxhash.xxh3_64_intdigest(name.encode()) % SHARDS
    path = _folder(root) / f"{shard:03d}.lock"
    lock, waited = FileLock(path), False
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        waited = True
        before_waiting()
        lock.acquire(timeout=timeout)
    try:
        yield waited
    finally:
        lock.release()


def _folder(root: Place) -> Path:
    """Where the lock files of a tier lie."""
    if isinstance(root, Path):
        return _made(root / "_locks")
    name = xxhash.xxh3_64_hexdigest(str(root).encode())
    with suppress(OSError):
        found = _made(user_cache_path("tickstate") / "locks" / name)
        if os.access(found, os.W_OK):
            return found
    return _made(Path(tempfile.gettempdir()) / f"tickstate-locks-{os.getuid()}" / name)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
