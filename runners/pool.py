"""Where spans run: in this process, on a pool of processes that may lose one, or on what a caller brings."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    as_completed,
    wait,
)
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from tickstate.features.registry import default_registry
from tickstate.kernels import _jit, _prepare
from tickstate.kernels.errors import TickstateError
from tickstate.runners import KEEPS_MEMORY
from tickstate.runners.gold import DaySpan
from tickstate.runners.outcome import Outcome
from tickstate.runners.selection import Selection
from tickstate.runners.span import Span

AnySpan = Span | DaySpan
Report = Callable[[Outcome], None]
DIED = "its worker process died, each time it was tried: killed from outside, or out of memory"
LOST = (BrokenExecutor, CancelledError)
"""What a future raises when its worker, not its task, is at fault. What a task has to say is in its outcomes."""
SPAWN = multiprocessing.get_context("spawn")
"""Processes start fresh: a forked numba or pyarrow may hang."""
ALONE = 3
"""How often a partition is run by itself where its worker was lost for another reason."""


class WorkerLost(BrokenExecutor):
    """A task is lost with its worker, and may be given again; ``suspect`` where it has killed several already."""

    def __init__(self, text: str = "", suspect: bool = False) -> None:
        super().__init__(text)
        self.suspect = suspect


class PoolLost(Exception):  # noqa: N818 - said in the summary of a run, not raised to users
    """No attempt can go on: what is left waits for another run."""


class Teller(Protocol):
    """The part of an observer that a pool speaks to."""

    def compiling(self, kernels: int) -> None: ...
    def noticed(self, text: str) -> None: ...


@dataclass(frozen=True)
class Work:
    """What spans need before they run: kernels, the packages of their features, and the places of a selection."""

    kernels: Sequence[_jit.Kernel]
    packages: Sequence[str]
    selection: Selection


class Pool:
    """Where the spans of a run go. Made once a run, started at each attempt, closed at the end; this one: here."""

    workers = 1
    """How many tasks run at a time."""

    def placed(self, selection: Selection) -> Selection:
        """The selection with places as the workers know them."""
        return selection

    def start(self, observer: Teller) -> None:
        """Have workers. Raises a ``TickstateError`` before anything has run, ``PoolLost`` later."""

    def expect(self, tasks: int) -> None:
        """So many tasks will come soon: begin with what takes time."""

    def prepare(self, work: Work, observer: Teller) -> None:
        """Compile what is not compiled yet, so that workers only load it; errors as of ``start``."""
        _prepare.prepare(work.kernels, observer.compiling)

    def executor(self) -> AbstractContextManager[Executor]:
        """An executor for one attempt."""
        return InlineExecutor()

    def alone(self) -> AbstractContextManager[Executor]:
        """An executor for one task that may kill its worker."""
        return local_pool(1)

    def close(self) -> None:
        """Let go of everything."""


class LocalPool(Pool):
    """Processes of this machine, new ones at each attempt."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._begun = SPAWN.RawValue("b", 0)
        self._executor: Executor | None = None

    def expect(self, tasks: int) -> None:
        self.close()
        workers = max(1, min(tasks, self.workers))
        self._executor = local_pool(workers, self._begun)
        with _beginning(), suppress(BrokenExecutor):  # the first task says so
            for _ in range(workers):
                self._executor.submit(_nothing)  # a process is started at each while none is idle

    def close(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        if self._executor is None:
            self.expect(self.workers)
        try:
            yield self._executor
        finally:
            self.close()
        if not self._begun.value:  # no task is at fault: trying them one by one would take as long as it is pointless
            raise TickstateError(
                "no worker process could start", where=getattr(sys.modules["__main__"], "__file__", None) or "batch",
                expected="a main module that can be imported, and memory for it",
                fix="put what the script does below if __name__ == '__main__':, or use runner 'single'; "
                "what the workers said is above",
            )  # fmt: skip


class GivenPool(Pool):
    """A ``concurrent.futures.Executor`` of the caller's, left open."""

    def __init__(self, executor: Executor, workers: int | None = None) -> None:
        self._executor = executor
        self.workers = workers or getattr(executor, "_max_workers", None) or os.cpu_count() or 1

    def executor(self) -> AbstractContextManager[Executor]:
        return nullcontext(self._executor)


class InlineExecutor(Executor):
    """A ``concurrent.futures.Executor`` that does the work at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        return future


def local_pool(workers: int, begun: Any = None) -> Executor:
    """Processes of this machine; the first that works sets ``begun``, a value that they share."""
    share = max(1, (os.cpu_count() or 1) // workers)
    return ProcessPoolExecutor(workers, mp_context=SPAWN, initializer=_begin, initargs=(share, begun))


@contextmanager
def _beginning() -> Iterator[None]:
    """Processes that begin in the block keep memory, unless the caller's environment says otherwise, and hear of Ctrl-C
    once they can end without a word."""
    name, value = KEEPS_MEMORY
    is_set = name in os.environ
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.environ.setdefault(name, value)
        yield
    finally:
        if not is_set:
            os.environ.pop(name, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)  # last: what was not heard is raised here


def _begin(threads: int, begun: Any) -> None:
    """Import what every task needs, while the caller still plans. Ctrl-C ends it at once, as anything may, unless it is
    ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_caller, daemon=True).start()
    from tickstate.lake.arrow import without_pandas

    without_pandas()
    import pyarrow

    from tickstate.runners import executor  # noqa: F401

    default_registry()  # plugins first, as in the caller: one that imports numba decides how
    if not _jit.interpreted():
        _jit.load_numba()
    pyarrow.set_cpu_count(threads)
    atexit.register(gc.freeze)  # else the interpreter walks through all of numba's objects once more, to end
    if begun is not None:
        begun.value = 1


def _end_with_caller() -> None:
    """End this process when the caller's is killed: it would compute on, and then wait for tasks for ever."""
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os._exit(1)


def _nothing() -> None:
    """A task that starts a worker."""


class Lost(NamedTuple):
    """A span without outcomes, and what its executor said."""

    span: AnySpan
    error: BaseException

    @property
    def is_suspect(self) -> bool:
        return getattr(self.error, "suspect", False)


def run_spans(spans: Iterable[AnySpan], executor: Executor, report: Report) -> list[Lost]:
    """Run spans on an executor and report outcomes as they come; returns what was lost with its worker.

    An executor with a ``window`` (a function: how many tasks it wants at a time) is given no more than that.
    """
    futures: dict[Future[list[Outcome]], AnySpan] = {}
    lost: list[Lost] = []
    window: Callable[[], int] = getattr(executor, "window", lambda: 1 << 62)

    def settle(future: Future[list[Outcome]]) -> None:
        span = futures.pop(future)
        try:
            outcomes = future.result()
        except LOST as error:
            lost.append(Lost(span, error))
        else:
            for outcome in outcomes:
                report(outcome)

    from tickstate.runners.executor import execute  # pyarrow's half, and no use to a run with nothing to do

    for span in spans:
        while len(futures) >= window():
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                settle(future)
        try:
            future = executor.submit(execute, span)
        except LOST as error:
            lost.append(Lost(span, error))
            continue
        futures[future] = span
        if future.done():  # inline: said now, not when all is done
            settle(future)
    for future in as_completed(list(futures)):
        settle(future)
    return lost


def run_alone(spans: Iterable[AnySpan], pool: Pool, report: Report, observer: Teller) -> None:
    """Run every partition of lost spans by itself, and name the ones that kill their worker."""
    for span in spans:
        for hour in span.hours:
            lost = _run_one(replace(span, hours=(hour,)), pool, report, observer)
            for target in _targets(span, hour) if lost else ():
                report(Outcome(target, span.lane, hour, error=DIED))


def _run_one(span: AnySpan, pool: Pool, report: Report, observer: Teller) -> list[Lost]:
    """Run a partition by itself; again where it was lost by no fault of its own."""
    lost: list[Lost] = []
    for _ in range(ALONE):
        pool.start(observer)
        with pool.alone() as executor:
            lost = run_spans([span], executor, report)
        if not lost or lost[0].is_suspect or not isinstance(lost[0].error, WorkerLost):
            break  # a process that had nothing else to do died of it
    return lost


def _targets(span: AnySpan, hour: int) -> list[str]:
    """The channels that a task writes of an hour: of a day of bars, one a kind."""
    return [span.writes] if isinstance(span, Span) else [f"{span.writes}/{kind.name}" for kind in span.kinds[hour]]
