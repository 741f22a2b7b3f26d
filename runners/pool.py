"""Where spans run: in this process, or on the processes of a local pool that may lose one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from tickstate.runners.executor import execute
from tickstate.runners.gold import DaySpan
from tickstate.runners.plan import Span
from tickstate.runners.worker import Outcome

Report = Callable[[Outcome], None]
DIED = "its worker process died, each time it was tried: killed from outside, or out of memory"


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


def local_pool(workers: int) -> Executor:
    """Processes of this machine, started fresh (a forked numba or pyarrow may hang)."""
    share = max(1, (os.cpu_count() or 1) // workers)
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(share,)
    )


def _begin(threads: int) -> None:
    import pyarrow

    pyarrow.set_cpu_count(threads)


def run_spans(spans: Iterable[Span | DaySpan], executor: Executor, report: Report) -> list[Span | DaySpan]:
    """Run spans on an executor; returns those that were lost with their worker."""
    futures: dict[Future[list[Outcome]], Span | DaySpan] = {}
    lost = []

    def settle(future: Future[list[Outcome]]) -> None:
        span = futures.pop(future)
        try:
            outcomes = future.result()
        except BrokenProcessPool:
            lost.append(span)
        else:
            for outcome in outcomes:
                report(outcome)

    for span in spans:
        try:
            future = executor.submit(execute, span)
        except BrokenProcessPool:
            lost.append(span)
            continue
        futures[future] = span
        if future.done():  # inline: said now, not when all is done
            settle(future)
    for future in as_completed(list(futures)):
        settle(future)
    return lost


def run_alone(spans: Iterable[Span | DaySpan], report: Report) -> None:
    """Run every partition of lost spans in a process of its own, and name the ones that kill it."""
    for span in spans:
        for hour in span.hours:
            single = replace(span, hours=(hour,))
            with local_pool(1) as executor:
                if run_spans([single], executor, report):
                    report(Outcome(span.channel, span.lane, hour, error=DIED))
