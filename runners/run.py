"""A run: plan, execute, and plan again while bronze moved or workers were lost. The runners are its settings."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from tickstate.features.graph import Graph
from tickstate.features.registry import BUILT_IN, default_registry
from tickstate.kernels import _jit, _prepare
from tickstate.kernels.errors import TickstateError
from tickstate.lake.commit import Quarantined, write_quarantine
from tickstate.lake.listing import Listing
from tickstate.lake.names import Lane, is_daily
from tickstate.lake.segment import Files
from tickstate.lake.store import Place
from tickstate.runners.gold import PENDING, GoldPlan, kinds_of, make_gold_plan, waiting_hours
from tickstate.runners.outcome import Outcome
from tickstate.runners.plan import Plan, Planned, make_plan
from tickstate.runners.pool import AnySpan, GivenPool, LocalPool, Pool, PoolLost, Work, run_alone, run_spans
from tickstate.runners.selection import Selection, check_files, check_places
from tickstate.runners.span import Span

AnyPlan = Plan | GoldPlan

ATTEMPTS = 3
"""How often a run plans again after losing workers or meeting bronze that changes under it."""
LONGEST_SPAN = 24
LOCAL = "local"


class Observer(Protocol):
    """What watches a run: progress bars, metrics, tests."""

    def planned(self, plan: AnyPlan) -> None: ...
    def compiling(self, kernels: int) -> None: ...
    def finished(self, outcome: Outcome) -> None: ...
    def noticed(self, text: str) -> None: ...


class Silent:
    """An observer that looks away."""

    def planned(self, plan: AnyPlan) -> None:
        """The plan is made."""

    def compiling(self, kernels: int) -> None:
        """Kernels must be compiled first."""

    def finished(self, outcome: Outcome) -> None:
        """One partition is through."""

    def noticed(self, text: str) -> None:
        """Something out of the ordinary, in words."""


@dataclass
class Summary:
    """What a run did."""

    partitions: int = 0
    up_to_date: int = 0
    computed: list[Outcome] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    """Bronze files left out: found now, or known from the records of what is up to date."""
    stopped: str = ""
    """Why the run ended before all was tried: its workers or their scheduler are gone."""
    left: int = 0
    """Partitions that were not tried, then."""
    seconds: float = 0.0
    plan: Plan | None = field(default=None, repr=False)

    def add(self, tier: Summary, quarantined: list[Quarantined]) -> None:
        """Count one tier in."""
        self.partitions += tier.partitions
        self.up_to_date += tier.partitions - len(tier.computed) - len(tier.failed) - tier.left
        self.computed += tier.computed
        self.failed += tier.failed
        self.stopped, self.left = self.stopped or tier.stopped, self.left + tier.left
        self.quarantined += quarantined

    @property
    def counters(self) -> dict[str, int]:
        """Rows of silver, rows by flag, duplicates, gaps and so on, over all that was computed."""
        total: Counter[str] = Counter()
        for channel, counts in self.by_channel.items():
            total.update({} if is_daily(channel) else counts)
        return dict(total)

    @property
    def by_channel(self) -> dict[str, dict[str, int]]:
        """``counters`` channel by channel."""
        found: dict[str, Counter[str]] = {}
        for outcome in self.computed:
            found.setdefault(outcome.channel, Counter()).update(outcome.counters)
        return {channel: dict(counts) for channel, counts in sorted(found.items())}

    @property
    def states_dropped(self) -> int:
        """Saved states that did not fit, so that a lane started from its lookback instead."""
        return sum(1 for o in self.computed if o.dropped_state)

    @property
    def exit_code(self) -> int:
        """0: everything is there; 1: a partition failed or is left, or a bronze file is quarantined."""
        return 1 if self.failed or self.stopped or self.quarantined else 0

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "partitions": self.partitions, "computed": len(self.computed), "up_to_date": self.up_to_date,
            "failed": [{"partition": str(o), "error": o.error} for o in self.failed],
            "counters": self.counters, "channels": self.by_channel,
            "states_dropped": self.states_dropped,
            "quarantined": [{"path": q.path, "reason": q.reason, "detail": q.detail} for q in self.quarantined],
            "stopped": self.stopped, "left": self.left, "seconds": round(self.seconds, 3),
        }  # fmt: skip


def run_single(selection: Selection, observer: Observer | None = None) -> Summary:
    """Every stale partition of the selection, in this process, in order."""
    return _run(selection, Pool(), observer or Silent())


def run_batch(
    selection: Selection,
    workers: int | None = None,
    executor: Any = None,
    observer: Observer | None = None,
) -> Summary:
    """Every stale partition over a pool; a lane's hours are spread over its workers too.

    ``executor``: in place of ``workers`` processes of this machine, any ``concurrent.futures.Executor`` whose
    workers see the same paths, a ``distributed.Client``, or what ``--executor`` takes.
    """
    return _run(selection, pool_of(executor, workers), observer or Silent())


def pool_of(executor: Any, workers: int | None = None) -> Pool:
    """The pool that ``executor`` means; raises a ``TickstateError`` where it means none."""
    is_dask = type(executor).__module__.partition(".")[0] == "distributed"
    if is_dask or (isinstance(executor, str) and executor != LOCAL):
        from tickstate.runners.cluster import DaskPool

        return DaskPool(executor, workers)
    if executor is not None and executor != LOCAL:
        if not callable(getattr(executor, "submit", None)):
            expected = "a concurrent.futures.Executor, a distributed.Client, or text as of --executor"
            raise TickstateError(f"{executor!r}", where="executor", expected=expected)
        return GivenPool(executor, workers)
    workers = workers or os.cpu_count() or 1
    return Pool() if workers == 1 else LocalPool(workers)


def _run(selection: Selection, pool: Pool, observer: Observer) -> Summary:
    """Tier by tier: gold is planned when silver is there."""
    began = time.monotonic()
    check(selection)
    check_files(selection)
    selection = pool.placed(selection)
    summary, waiting = Summary(), {}
    with closing(pool):
        if "silver" in selection.tiers:
            outcomes = _run_tier(lambda: plan_silver(selection), summary, pool, observer)
            waiting = waiting_hours(outcomes)
        if "gold" in selection.tiers and selection.gold is not None and not summary.stopped:
            bronze = summary.plan.listings if summary.plan is not None else None
            _run_tier(partial(plan_gold, selection, waiting, bronze), summary, pool, observer)
    summary.seconds = time.monotonic() - began
    return summary


def check(selection: Selection) -> None:
    """Raise for places that are mixed up and bars that nobody knows, before anything is computed."""
    check_places(selection)
    if "gold" in selection.tiers and selection.gold is not None:
        kinds_of(selection)


def plan_tiers(selection: Selection) -> list[AnyPlan]:
    """The plans of the tiers of a selection, nothing computed: days wait for the hours of silver that are stale."""
    check(selection)
    check_files(selection)
    plans: list[AnyPlan] = []
    waiting = {}
    if "silver" in selection.tiers:
        plans.append(make_plan(selection, Files(digests_path(selection.silver))))
        waiting = {(p.channel, p.lane, p.hour): PENDING for p in plans[0].stale}
        waiting |= waiting_hours(plans[0].failed)
    if "gold" in selection.tiers and selection.gold is not None:
        bronze = plans[0].listings if plans else None
        plans.append(make_gold_plan(selection, Files(digests_path(selection.gold)), waiting=waiting, bronze=bronze))
    return plans


def digests_path(root: Place) -> Place:
    """Where digests of what a tier is made from are kept from run to run: a cache, safe to remove."""
    return root / "_state" / "digests.msgpack"


def plan_silver(selection: Selection) -> Plan:
    """The plan of silver, with digests that earlier runs have kept."""
    files = Files(digests_path(selection.silver))
    plan = make_plan(selection, files)
    files.save()
    return plan


def plan_gold(
    selection: Selection, waiting: Mapping[tuple[str, Lane, int], str], bronze: Mapping[str, Listing] | None = None
) -> GoldPlan:
    """The plan of gold, with what earlier runs have kept of objects in a bucket."""
    assert selection.gold is not None
    files = Files(digests_path(selection.gold))
    plan = make_gold_plan(selection, files, waiting=waiting, bronze=bronze)
    files.save()
    return plan


def _run_tier(make: Callable[[], AnyPlan], total: Summary, pool: Pool, observer: Observer) -> list[Outcome]:
    """Plan one tier and compute it, again while workers are lost or inputs move; adds to ``total``."""
    plan = make()
    observer.planned(plan)
    summary = Summary(partitions=len(plan.partitions) + len(plan.failed))
    known = dict(plan.known)
    changed: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        known.update({q.path: q for q in outcome.quarantined})
        if outcome.changed:
            changed.append(outcome)
            return
        (summary.failed if outcome.error else summary.computed).append(outcome)
        observer.finished(outcome)

    for outcome in plan.failed:
        report(outcome)
    for text in plan.notices:
        observer.noticed(text)
    for attempt in range(ATTEMPTS):
        plan.partitions = _not_done(plan, summary)
        if not any(p.pending for p in plan.partitions):
            break
        changed.clear()
        try:
            lost = _attempt(plan, attempt, pool, report, observer)
        except PoolLost as reason:
            summary.left = sum(1 for p in _not_done(plan, summary) if p.reasons)
            summary.stopped = f"{reason}; run again: it goes on from what is committed"
            break
        if not lost and not changed and not any(p.reasons for p in _not_done(plan, summary)):
            break
        if lost or changed:
            observer.noticed(
                "a worker died: planning again" if lost else f"{plan.source} changed while it was read: planning again"
            )
        plan = make()  # what somebody else has made in the meantime is known by its record
        known.update(plan.known)
    for outcome in changed:
        error = f"{plan.source} kept changing: run again"
        summary.failed.append(Outcome(outcome.channel, outcome.lane, outcome.hour, error=error))
    known.update({q.path: q for q in plan.misplaced})
    write_misplaced(plan)
    total.add(summary, [known[path] for path in sorted(known)])
    total.plan = total.plan or plan
    return [*summary.computed, *summary.failed]


def _not_done(plan: AnyPlan, summary: Summary) -> list[Planned]:
    """The partitions of a plan that have no outcome yet."""
    done = {(o.channel, o.lane, o.hour) for o in (*summary.computed, *summary.failed)}
    return [p for p in plan.partitions if (p.channel, p.lane, p.hour) not in done]


def _attempt(
    plan: AnyPlan, attempt: int, pool: Pool, report: Callable[[Outcome], None], observer: Observer
) -> list[AnySpan]:
    """Give what is stale to the pool; returns the spans that were lost with a worker and not run alone."""
    pool.start(observer)
    lanes = len({(p.channel, p.lane) for p in plan.stale})
    length = _span_length(len(plan.stale), lanes, pool.workers)
    pool.expect(len(plan.groups(length)))
    spans = plan.spans(length)
    plan.files.save()  # spans have learnt the digests of what is stale
    if attempt == 0:
        for text in _notices(spans):
            observer.noticed(text)
    pool.prepare(Work(kernels_of(spans), packages_of(spans), plan.selection), observer)
    with pool.executor() as executor:
        lost = run_spans(spans, executor, report)
    last = attempt == ATTEMPTS - 1
    culprits = [found.span for found in lost if last or found.is_suspect]
    if culprits:
        observer.noticed("workers keep dying: what is left runs one partition at a time")
        run_alone(culprits, pool, report, observer)
    return [found.span for found in lost if not (last or found.is_suspect)]


def _notices(spans: list[AnySpan]) -> list[str]:
    """What a user should know of the stale partitions' configuration, once a run."""
    unset = sorted({str(s.lane) for s in spans if isinstance(s, Span) and _lacks_bucket_volume(s.graph)})
    if not unset:
        return []
    shown = ", ".join(unset[:4]) + (", ..." if len(unset) > 4 else "")
    return [f"vpin is null for {shown}: no bucket_volume (--set vpin.bucket_volume=LOTS, or [features.vpin])"]


def _lacks_bucket_volume(graph: Graph) -> bool:
    unset = [f for f in graph.features if f.name == "vpin" and not f["bucket_volume"]]
    return any(graph.selected.intersection(f.names) for f in unset)


def write_misplaced(plan: AnyPlan) -> None:
    """Record the files whose very path is wrong, channel by channel, beside the quarantine lists of hours."""
    for channel in plan.listings:
        found = [q for q in plan.misplaced if q.path.startswith(f"{channel}/")]
        write_quarantine(plan.selection.silver / "_quarantine" / channel / "misplaced.json", found)


def _span_length(stale: int, lanes: int, workers: int) -> int:
    """Hours a task: long spans pay the lookback once, short ones keep every worker busy to the end.

    A lane alone is dealt out evenly, one span a worker; several are seldom equal, so that workers get more than one.
    """
    if workers == 1:
        return LONGEST_SPAN
    tasks = workers if lanes == 1 else 2 * workers
    return max(1, min(LONGEST_SPAN, -(-stale // tasks)))  # rounded up: no task of a few hours is left over


def prepare(spans: list[AnySpan], announce: Callable[[int], None]) -> None:
    """Compile here what is not compiled yet."""
    _prepare.prepare(kernels_of(spans), announce)


def kernels_of(spans: list[AnySpan]) -> list[_jit.Kernel]:
    """Every kernel that spans call."""
    from tickstate.kernels import book, columns, order, tape

    needed = {columns.finish_columns}
    if any(isinstance(span, Span) for span in spans):
        needed |= {
            k for m in (book, columns, order) for k in vars(m).values() if isinstance(k, _jit.Kernel) and k.typed
        }
        needed.add(tape.tape_totals)
    needed.update(user.kernel for span in spans for user in _users_of(span))
    return sorted(needed, key=lambda k: (k.__module__, k.__name__))


def packages_of(spans: list[AnySpan]) -> list[str]:
    """The packages of other people whose features spans compute."""
    registry = default_registry()
    found = {registry.package_of(kind) for kind in {type(f) for span in spans for f in _features_of(span)}}
    return sorted(found - {"", BUILT_IN})


def _users_of(span: AnySpan) -> Iterable[Any]:
    return span.work().graph.batches if isinstance(span, Span) else _features_of(span)


def _features_of(span: AnySpan) -> Iterable[Any]:
    if isinstance(span, Span):
        return span.work().graph.features
    return [f for kinds in span.kinds.values() for kind in kinds for f in (kind.rule, *kind.families)]
