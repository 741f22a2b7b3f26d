"""What comes after computing, in threads of their own: a partition is encoded and committed while the next is computed.

Four threads share a lane's work, each a step behind the other: one reads (``runners/ahead.py``), the worker's own
computes, one encodes the row groups that are computed, and one commits: footer, fsync, replace, commit record. The last
two are a ``Behind`` each: encoding is work, committing is mostly waiting for the disk, in which the next partition is
encoded. What either is given it does in the order it was given, so that the partitions of a lane are committed one
after the other, each record behind its data, as if there was no thread; only what is computed meanwhile is further on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def as_batch_work() -> None:
    """Let this thread not take the core from another one the moment it is woken, where the system knows of that.

    Threads that hand chunks to each other on one core would else change places in the middle of each, with what the
    core's caches hold: 1,100 instead of 800 times in eight busy hours, a thirtieth of their CPU time.
    """
    with suppress(AttributeError, OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # what somebody chose stays
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Behind:
    """One thread, one act at a time. Who gives it one waits then until the one before is done (``catch_up``).

    So that beside the rows that are computed, those of one row group are held, and one partition is unfinished.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, f"tickstate-{name}", initializer=as_batch_work)
        self._before: Future[Any] | None = None
        self._last: Future[Any] | None = None

    def begin(self) -> None:
        """Start the thread, if it has not begun yet: where none can be had, nothing is with it yet."""
        self._thread.submit(lambda: None)

    def submit(self, act: Callable[[], T]) -> Future[T]:
        """Have something done. Its errors are its future's alone: what comes after is done all the same."""
        found = self._thread.submit(act)
        self._before, self._last = self._last, found
        return found

    def catch_up(self) -> None:
        """Wait until all but the last act is done."""
        if self._before is not None:
            wait((self._before,))

    def close(self) -> None:
        """Wait until all is done, and end the thread."""
        self._thread.shutdown()
