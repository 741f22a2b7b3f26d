"""The watcher: plan, execute, wait, again. The listing of bronze is the truth; events only wake it sooner."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tickstate.lake.commit import Quarantined
from tickstate.lake.errors import StoreError
from tickstate.lake.names import Lane
from tickstate.lake.segment import Files
from tickstate.runners.executor import worker_for
from tickstate.runners.gold import DaySpan, make_gold_plan, waiting_hours
from tickstate.runners.outcome import Outcome
from tickstate.runners.plan import Clock, Planned, make_plan
from tickstate.runners.run import LONGEST_SPAN, AnyPlan, Observer, Silent, Summary, check, digests_path, prepare
from tickstate.runners.selection import Selection, check_files
from tickstate.runners.span import Span
from tickstate.runners.worker import Worker

MICRO = 1_000_000


@dataclass(frozen=True)
class Pace:
    """How the watcher goes about time, in seconds."""

    poll: float = 5.0
    """Between two looks at the listing."""
    grace: float = 900.0
    """How long a silent channel is waited for before its time counts as complete."""
    refresh: float = 0.0
    """At least this long between two rewrites of an open hour."""


class Watcher:
    """Keeps silver and gold up to date with a growing bronze. ``now``: the wall clock (us), which tests rule."""

    def __init__(
        self,
        selection: Selection,
        pace: Pace | None = None,
        observer: Observer | None = None,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        check(selection)
        self.selection, self.pace, self._now = selection, pace or Pace(), now
        self._observer = observer or Silent()
        self._files = Files(digests_path(selection.silver))
        self._workers: dict[tuple[str, Lane], Worker] = {}
        self._written: dict[tuple[str, Lane], int] = {}
        self._stop, self._wake = threading.Event(), threading.Event()
        self._known: dict[str, Quarantined] = {}
        self._keeps, self._checked = False, False
        self._noticed: set[str] = set()
        self.summary = Summary()
        """Of the last cycle that did anything; of all of them with ``once``."""

    def stop(self) -> None:
        """Ask it to end after the partitions at hand: one is computed while one is written."""
        self._stop.set()
        self._wake.set()

    def run(self, once: bool = False) -> Summary:
        """Cycle until stopped, or (``once``) until nothing is left to do."""
        began, self._keeps = time.monotonic(), once
        with self._woken_by_events(once):
            while not self._stop.is_set():
                done = self._try_cycle(once)
                if once and not done:
                    break
                if not once:
                    self._wake.wait(self.pace.poll)
                    self._wake.clear()
        self.close()
        self.summary.seconds = time.monotonic() - began
        return self.summary

    def _try_cycle(self, once: bool) -> list[Outcome]:
        """A cycle; where an object store does not answer, the next one tries again."""
        try:
            return self.cycle()
        except StoreError as error:
            if once:
                raise
            self._observer.noticed(f"{error}; trying again")
            return []

    def cycle(self) -> list[Outcome]:
        """One look at the listing, and all the work it shows."""
        clock = Clock(self._now(), round(self.pace.grace * MICRO))
        plans: list[AnyPlan] = []
        done: list[Outcome] = []
        if not self._checked:
            check_files(self.selection)
            self._checked = True
        if "silver" in self.selection.tiers:
            plans.append(make_plan(self.selection, self._files, clock))
            done += self._run_plan(plans[-1], clock)
            self._files.save()
        if "gold" in self.selection.tiers and self.selection.gold is not None and not self._stop.is_set():
            plans.append(make_gold_plan(self.selection, self._files, clock, waiting_hours(done)))
            done += self._run_plan(plans[-1], clock)
        self._account(plans, done)
        hours = (
            h
            for p in plans
            for listing in p.listings.values()
            for lane in listing.lanes.values()
            for h in lane.values()
        )
        self._files.forget_missing(s for segments in hours for s in segments)
        return [o for o in done if not o.error]

    def _run_plan(self, plan: AnyPlan, clock: Clock) -> list[Outcome]:
        """The work of one tier."""
        self._observer.planned(plan)
        plan.partitions = [p for p in plan.partitions if not self._rests(p, clock.now)]
        for text in plan.notices:
            if text not in self._noticed:
                self._noticed.add(text)
                self._observer.noticed(text)
        spans = plan.spans(LONGEST_SPAN)
        prepare(spans, self._observer.compiling)
        done: list[Outcome] = list(plan.failed)
        for span in spans:
            if self._stop.is_set():
                break
            done += self._run_span(span, clock.now)
        return done

    def close(self) -> None:
        """End the threads of all lanes."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def _run_span(self, span: Span | DaySpan, now: int) -> list[Outcome]:
        key = span.writes, span.lane
        worker = self._workers.get(key)
        if worker is not None and worker.fits(span):
            worker.update(span)
        else:
            if worker is not None:
                worker.close()
            worker = self._workers[key] = worker_for(span, self._files, patience=0)
        found = worker.run(self._observer.finished, self._stop.is_set)
        for outcome in found:
            if outcome.busy:
                self._observer.noticed(f"{outcome}: another runner is at it, next time")
        found = [o for o in found if not o.busy]
        if found:
            worker.save()
            self._written[key] = now
        return found

    def _rests(self, planned: Planned, now: int) -> bool:
        """Whether an open hour was rewritten too short a time ago."""
        written = self._written.get((planned.channel.partition("/")[0], planned.lane))
        recently = written is not None and 0 <= now - written < self.pace.refresh * MICRO
        return planned.cutoff is not None and recently

    def _account(self, plans: list[AnyPlan], done: list[Outcome]) -> None:
        total = self.summary
        latest = {(o.channel, o.lane, o.hour): o for o in total.computed} if self._keeps else {}
        latest.update({(o.channel, o.lane, o.hour): o for o in done if not o.error and not o.changed})
        total.computed = list(latest.values()) if self._keeps or latest else total.computed
        total.failed = [o for o in done if o.error]
        worked = {(o.channel, o.lane, o.hour) for o in (*total.computed, *total.failed)}
        worked |= {(p.channel, p.lane, p.hour) for plan in plans for p in plan.stale}
        known = {(p.channel, p.lane, p.hour) for plan in plans for p in plan.partitions} | worked
        total.partitions, total.up_to_date = len(known), len(known - worked)
        self._known = {q.path: q for p in plans for q in (*p.misplaced, *p.known.values())}
        self._known.update({q.path: q for o in done for q in o.quarantined})
        total.quarantined = [self._known[path] for path in sorted(self._known)]
        total.plan = plans[0] if plans else None

    @contextmanager
    def _woken_by_events(self, once: bool):  # type: ignore[no-untyped-def]  # noqa: ANN202
        """File events, where watchfiles is installed, wake the watcher before its poll is due."""
        try:
            from watchfiles import watch
        except ImportError:
            watch = None
        watched = self.selection.bronze if "silver" in self.selection.tiers else self.selection.silver
        if watch is None or once or not isinstance(watched, Path):  # a bucket has no events to listen to
            yield
            return
        over = threading.Event()

        def listen(folder: Path) -> None:
            for _ in watch(folder, stop_event=over, debounce=50, step=20, raise_interrupt=False):
                self._wake.set()

        thread = threading.Thread(target=listen, args=(watched,), name="tickstate-events", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=2)


@contextmanager
def stopping_on_signals(watcher: Watcher):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """SIGTERM and SIGINT stop the watcher after the partitions at hand; a second one ends the process at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if watcher._stop.is_set():
            os._exit(128 + number)
        watcher.stop()

    before = {}
    with suppress(ValueError):  # not the main thread: somebody else's signals
        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
