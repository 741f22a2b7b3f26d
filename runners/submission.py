"""Tasks on their way to the workers of a Dask cluster and back: whatever goes wrong there, each of them ends.

A dead worker, a lost scheduler or connection become ``WorkerLost``, as with any executor of ``runners/pool.py``.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tickstate.runners import remote
from tickstate.runners.pool import Teller, WorkerLost

if TYPE_CHECKING:
    from distributed import Client

    from tickstate.runners.cluster import DaskPool

LIMITS = {"connect-timeout": 10.0, "worker-timeout": 60.0, "answer-timeout": 60.0}
"""Seconds to wait for a scheduler, for a worker where there is none, for its answers; ``tickstate.NAME`` in Dask's
configuration."""
LOOK = 0.5
MOVES = 3
"""How often a task is given to other workers because those that had it are gone."""
TASKS_A_THREAD, LEAST_TASKS = 4, 64
"""How many tasks a scheduler is given at a time: enough to be busy and to ask for more workers."""


class DaskExecutor(Executor):
    """A ``concurrent.futures.Executor`` over a client, whose futures always end.

    Tasks compare their worker with us before they begin, so that one that joined later takes no part unseen.
    A thread looks after tasks that nobody can run any more, which Dask would keep for ever.
    """

    def __init__(self, pool: DaskPool, client: Client, options: dict[str, Any]) -> None:
        self._pool, self._client, self._options = pool, client, options
        self._tasks: set[_Task] = set()
        self._guard = threading.RLock()
        self._ended = threading.Event()
        self._size = LEAST_TASKS
        self._vetting: threading.Thread | None = None
        self.teller: Teller
        threading.Thread(target=self._watch, name="tickstate-dask", daemon=True).start()

    def window(self) -> int:
        """How many tasks to give it at a time."""
        return self._size

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` on any worker that is like us."""
        return self._give(_Task(fn, args))

    def submit_to(self, worker: str, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``fn`` on one worker, whatever it is like."""
        return self._give(_Task(fn, args, worker))

    def drop(self) -> None:
        """Take back what has not ended."""
        with self._guard:
            tasks = list(self._tasks)
        for task in tasks:
            task.outer.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread; the client is its owner's."""
        self.drop()
        self._ended.set()

    def _give(self, task: _Task) -> Future[Any]:
        task.outer.add_done_callback(lambda outer: self._forget(task) if outer.cancelled() else None)
        with self._guard:
            self._tasks.add(task)
            self._send(task)
        return task.outer

    def _forget(self, task: _Task) -> None:
        with self._guard:
            self._tasks.discard(task)
        if task.inner is not None:
            with suppress(Exception):  # the scheduler may be gone
                task.inner.cancel()

    def _send(self, task: _Task) -> None:
        """Give a task to the workers that may have it; with none, it waits until ``_watch`` finds one."""
        target = [task.worker] if task.worker else sorted(self._pool.target())
        fn, args = (task.fn, task.args) if task.worker else (remote.perform, (self._pool.expected, task.fn, *task.args))
        task.target, task.sent = frozenset(target), task.sent + bool(target)
        if not target:
            return
        try:
            inner = task.inner = self._client.submit(
                fn, *args, key=f"tickstate_{task.fn.__name__}-{uuid.uuid4().hex}", workers=target, pure=False,
                priority=10 if task.worker else 0, **{"retries": 0} | self._options,
            )  # fmt: skip
        except Exception as error:  # a client that is closed or closing
            return self._fail(task, WorkerLost(str(error)))
        inner.add_done_callback(lambda future: self._settle(task, future))

    def _settle(self, task: _Task, inner: Any) -> None:
        if inner is not task.inner or task not in self._tasks:
            return  # it was given to others since, or nobody waits for it
        if inner.status not in ("finished", "error"):
            return self._fail(task, WorkerLost(f"it was {inner.status}"))
        try:
            result = inner.result(timeout=30)
        except Exception as error:
            return self._fail(task, _translated(error, bool(task.worker)))
        except BaseException as error:  # asyncio's own cancellation is none of the above
            return self._fail(task, WorkerLost(str(error)))
        if not task.worker:
            kind, result = result
            if kind == remote.UNLIKE:
                worker, reason = result
                self._pool.refuse(worker, reason)
                with self._guard:
                    return self._send(task)
            if kind == remote.FAILED:
                return self._fail(task, result)
        self._end(task, lambda: task.outer.set_result(result))

    def _fail(self, task: _Task, error: BaseException) -> None:
        self._end(task, lambda: task.outer.set_exception(error))

    def _end(self, task: _Task, settle: Callable[[], None]) -> None:
        with self._guard:
            known = task in self._tasks
            self._tasks.discard(task)
        if known and task.outer.set_running_or_notify_cancel():
            settle()

    def _watch(self) -> None:
        """Have newcomers vetted, and see that no task waits for workers that are gone."""
        patience = seconds("worker-timeout")
        while not self._ended.wait(LOOK):
            with self._guard:
                tasks = list(self._tasks)
            if not tasks:
                continue
            live = self._pool.live()
            if live is not None:
                self._size = max(LEAST_TASKS, TASKS_A_THREAD * sum(live.values()))
                if any(not task.worker for task in tasks):
                    self._welcome(self._pool.newcomers(live))
            for task in tasks:
                self._look_after(task, live, patience)

    def _look_after(self, task: _Task, live: dict[str, int] | None, patience: float) -> None:
        """A task without workers goes to others, where there are any; for some to come it waits so long, no longer."""
        if live is not None and any(is_meant(worker, task.target) for worker in live):
            task.waits_since = None
            return
        task.waits_since = task.waits_since or time.monotonic()
        if live is not None and task.worker:
            self._fail(task, WorkerLost("it is gone"))
        elif live and self._pool.target() and task.sent <= MOVES:
            task.waits_since, old = None, task.inner
            with self._guard:
                self._send(task)
            if old is not None:
                old.cancel()
        elif task.sent > MOVES or time.monotonic() - task.waits_since > patience:
            self._fail(task, WorkerLost("all workers that had it are gone"))

    def _welcome(self, newcomers: list[str]) -> None:
        if newcomers and (self._vetting is None or not self._vetting.is_alive()):
            self._vetting = threading.Thread(target=self._pool.vet, args=(newcomers,), daemon=True)
            self._vetting.start()


class _Task:
    """A call on its way."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], worker: str = "") -> None:
        self.fn, self.args, self.worker = fn, args, worker
        self.outer: Future[Any] = Future()
        self.inner: Any = None
        self.target: frozenset[str] = frozenset()
        self.sent = 0
        self.waits_since: float | None = None


def _translated(error: Exception, is_question: bool) -> BaseException:
    """What a failure of Dask's means. Tasks hand back their own errors as values; a question may fail to load."""
    from distributed import KilledWorker

    lost = isinstance(error, KilledWorker | OSError | TimeoutError) or "Cancel" in type(error).__name__
    if is_question and not lost:
        return error
    return WorkerLost(str(error), suspect=isinstance(error, KilledWorker))


def seconds(name: str) -> float:
    """A limit of ``LIMITS``, or what Dask's configuration says in its place."""
    import dask
    from dask.utils import parse_timedelta

    return parse_timedelta(dask.config.get(f"tickstate.{name}", LIMITS[name]))


def host_of(worker: str) -> str:
    """The machine of a worker's address."""
    return urlsplit(worker).hostname or worker


def is_meant(worker: str, targets: Collection[str]) -> bool:
    """Whether a worker is among addresses and hosts."""
    return worker in targets or host_of(worker) in targets
