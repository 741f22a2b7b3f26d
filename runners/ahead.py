"""Reading one chunk ahead: decoding Parquet and computing on it overlap, both without Python's lock."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tickstate.lake.behind import as_batch_work

T = TypeVar("T")
_END = object()


def read_ahead(items: Iterable[T], is_mark: Callable[[T], bool] = lambda item: False) -> Iterator[T]:
    """Yield ``items``, the next one prepared by a thread while one is used; its errors are raised here, in their turn.

    Never more than the two exist: the thread begins with an item when the one before it is taken. Marks between them
    (``is_mark``) do not count: behind one the thread goes on at once.
    """
    ready: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
    wanted, stop = threading.Semaphore(), threading.Event()

    def run() -> None:
        as_batch_work()
        try:
            for item in _when(wanted, stop, items):
                ready.put((item, None))
                if is_mark(item):
                    wanted.release()
            ready.put((_END, None))
        except BaseException as error:
            ready.put((_END, error))

    thread = threading.Thread(target=run, name="tickstate-read", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            if not is_mark(item):  # type: ignore[arg-type]
                wanted.release()
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        wanted.release()
        thread.join()


def _when(wanted: threading.Semaphore, stop: threading.Event, items: Iterable[T]) -> Iterator[T]:
    """``items``, each begun when ``wanted``, until ``stop``; what they hold open is closed then."""
    iterator = iter(items)
    try:
        while wanted.acquire() and not stop.is_set():
            try:
                item = next(iterator)
            except StopIteration:
                return
            yield item
            del item
    finally:
        getattr(iterator, "close", lambda: None)()
