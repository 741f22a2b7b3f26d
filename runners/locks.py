"""Two runners on one lake: a lock spares double work. Where it is lost, determinism keeps the result right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock

from tickstate.runners.plan import Span


@contextmanager
def lane_lock(span: Span, timeout: float = -1) -> Iterator[bool]:
    """Hold a lane of a channel; yields whether it had to be waited for. ``filelock.Timeout`` after ``timeout`` s."""
    path = span.silver / "_locks" / f"{span.channel}--{span.lane.exchange}--{span.lane.symbol}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    waited = False
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        waited = True
        lock.acquire(timeout=timeout)
    try:
        yield waited
    finally:
        lock.release()
