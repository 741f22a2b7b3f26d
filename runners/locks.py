"""Two runners on one lake: a lock spares double work. Where it is lost, determinism keeps the result right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import xxhash
from filelock import FileLock

from tickstate.runners.plan import Span

SHARDS = 256
"""Lock files of a tier: a partition takes one by its hash, so that years of hours leave no litter of locks."""


@contextmanager
def partition_lock(span: Span, hour: int, timeout: float = -1) -> Iterator[bool]:
    """Hold a partition; yields whether it had to be waited for. ``filelock.Timeout`` after ``timeout`` seconds."""
    shard = xxhash.xxh3_64_intdigest(f"{span.channel}/{span.lane}/{hour}".encode()) % SHARDS
    path = span.silver / "_locks" / f"{shard:03d}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, waited = FileLock(path), False
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        waited = True
        lock.acquire(timeout=timeout)
    try:
        yield waited
    finally:
        lock.release()
