"""Work is what is missing or stale: bronze, configuration and features against the commit records."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from tickstate.features.graph import Graph, build_graph
from tickstate.features.registry import default_registry
from tickstate.lake.commit import Commit, Quarantined, broken_links, commit_path, quarantined, read_commits
from tickstate.lake.digest import hour_digest
from tickstate.lake.errors import LakeError
from tickstate.lake.listing import Listing, Segment, list_channel, normalize_quotes
from tickstate.lake.names import HOUR, Lane, hour_name, parse_hour, partition_path, time_name
from tickstate.lake.segment import Files
from tickstate.lake.store import Place, snapshot, stat_of
from tickstate.runners import reasons
from tickstate.runners.choice import silver_names
from tickstate.runners.held import Held, Holding, without_orphans
from tickstate.runners.outcome import Outcome
from tickstate.runners.selection import Selection, channels_of, check_names, is_chosen, is_within
from tickstate.runners.span import Aim, Span, aim_of, inputs_of, keeps


@dataclass(frozen=True)
class Planned:
    """A partition of the selection, and why it must be computed (empty: it need not)."""

    channel: str
    lane: Lane
    hour: int
    reasons: tuple[str, ...]
    columns: tuple[str, ...]
    cutoff: int | None = None
    """The hour is open: only rows before this capture_ts (us) are complete."""
    before: int | None = None
    """The hour before it in its chain, for features whose past is unbounded."""
    held: int | None = None
    """Silver has its rows up to this capture_ts (us)."""
    kept: tuple[str, ...] = ()
    """Columns of the partition as it is that still hold."""
    conditional: bool = False
    """Up to date as long as the partition before it in the chain ends as it did."""

    @property
    def pending(self) -> bool:
        """Whether a task must look at it."""
        return bool(self.reasons) or self.conditional

    def __str__(self) -> str:
        return f"{self.channel} {self.lane} {time_name(self.channel, self.hour)}"


@dataclass(frozen=True)
class Clock:
    """The wall clock, for hours that are still open: now, and how long a silent channel is waited for (us)."""

    now: int
    grace: int


@dataclass
class Plan:
    """All partitions of a selection, and what was found wrong on the way."""

    selection: Selection
    files: Files = field(default_factory=Files)
    clock: Clock | None = None
    """None: every hour is complete."""
    partitions: list[Planned] = field(default_factory=list)
    misplaced: list[Quarantined] = field(default_factory=list)
    known: dict[str, Quarantined] = field(default_factory=dict)
    """Files that partitions which are up to date were made without, by path."""
    listings: dict[str, Listing] = field(default_factory=dict)
    digests: dict[tuple[str, Lane, int], str] = field(default_factory=dict)
    """Of the bronze of a channel, lane and hour."""
    failed: list[Outcome] = field(default_factory=list)
    """Partitions that cannot be made, and why."""
    notices: list[str] = field(default_factory=lambda: [f"left out: {e}" for e in default_registry().left_out])
    source: ClassVar[str] = "bronze"

    @cached_property
    def silver(self) -> Place:
        """Silver as it was when the plan began to look at it."""
        return snapshot(self.selection.silver)

    @property
    def stale(self) -> list[Planned]:
        return [p for p in self.partitions if p.reasons]

    def groups(self, longest: int) -> list[list[Planned]]:
        """Tasks of at most ``longest`` hours: runs of consecutive stale hours of a lane; a chain is one task."""
        groups: list[list[Planned]] = []
        for p in (p for p in self.partitions if p.pending):
            last = groups[-1][-1] if groups else None
            same = last is not None and _task_of(last) == _task_of(p)
            follows = same and (last.hour + 1 == p.hour and len(groups[-1]) < longest)
            if follows or (same and p.before is not None):
                groups[-1].append(p)
            else:
                groups.append([p])
        return groups

    def spans(self, longest: int) -> list[Span]:
        """The same with all that a worker needs."""
        return [self._span(g) for g in self.groups(longest)]

    def _span(self, group: list[Planned]) -> Span:
        first, last, chosen = group[0], group[-1], self.selection
        bare = Span(
            chosen.bronze, chosen.silver, first.channel, first.lane, tuple(p.hour for p in group),
            chosen.config, first.columns, kept=first.kept,
            cutoffs={p.hour: p.cutoff for p in group if p.cutoff is not None},
            before={p.hour: p.before for p in group if p.before is not None},
            conditional=frozenset(p.hour for p in group if p.conditional),
            newest=last.hour >= max(self.listing(first.channel).lanes[first.lane]),
        )  # fmt: skip
        hours: dict[str, set[int]] = {}
        for p in group:
            for channel, needed in inputs_of(bare.graph, p.hour).of(first.channel).items():
                hours.setdefault(channel, set()).update(needed)
        segments = {
            channel: {h: s for h in sorted(needed) if (s := self.segments(first.channel, first.lane, channel, h))}
            for channel, needed in hours.items()
        }
        digests = {
            channel: {h: self.digest(first.channel, first.lane, channel, h) for h in found}
            for channel, found in segments.items()
        }
        return replace(bare, segments=segments, digests=digests)

    def segments(self, channel: str, lane: Lane, input_channel: str, hour: int) -> tuple[Segment, ...]:
        """The bronze of ``input_channel`` that a lane's partitions of ``channel`` read for an hour."""
        source = lane if input_channel == channel else self.selection.config.trades_lane(lane)
        return tuple(self.listing(input_channel).segments(source, hour))

    def digest(self, channel: str, lane: Lane, input_channel: str, hour: int) -> str:
        """The digest of these segments, empty where there are none."""
        source = lane if input_channel == channel else self.selection.config.trades_lane(lane)
        found = self.digests.get((input_channel, source, hour))
        if found is None:
            segments = self.listing(input_channel).segments(source, hour)
            self.files.learn(segments)
            found = self.digests[input_channel, source, hour] = hour_digest(segments, self.files.digest)
        return found

    def complete(self, channel: str, lane: Lane, input_channel: str) -> int:
        """The time (us) before which bronze of a channel is complete: its last row's, or now - grace."""
        assert self.clock is not None
        source = lane if input_channel == channel else self.selection.config.trades_lane(lane)
        found = self.clock.now - self.clock.grace
        hours = self.listing(input_channel).lanes.get(source, {})
        for hour in sorted(hours, reverse=True):
            times = [i.high for i in map(self.files.inspect, hours[hour]) if i is not None and i.rows]
            if times:
                return max(found, *times)
        return found

    def listing(self, channel: str) -> Listing:
        """What bronze holds of a channel; walked once a plan."""
        if channel not in self.listings:
            found = list_channel(self.selection.bronze, channel)
            self.misplaced += [quarantined(bad, self.selection.bronze) for bad in found.misplaced]
            config = self.selection.config
            self.listings[channel] = normalize_quotes(found, config.prefer) if config.normalize_quotes else found
        return self.listings[channel]


def make_plan(selection: Selection, files: Files | None = None, clock: Clock | None = None) -> Plan:
    """Compare every partition of the selection with its commit record. Reads footers, computes nothing.

    With a ``clock`` hours may be open (DESIGN.md, "Open hours"); ``files``: what earlier plans learnt of bronze.
    """
    plan = Plan(selection, files or Files(), clock)
    channels = channels_of(selection, clock is not None)
    lanes = {lane for channel in channels for lane in plan.listing(channel).lanes}
    if clock is None:  # a lane that is watched for may still come
        check_names("exchange", selection.exchanges, {lane.exchange for lane in lanes}, selection)
        check_names("symbol", selection.symbols, {lane.symbol for lane in lanes}, selection)
    for channel in channels:
        for lane in sorted(plan.listing(channel).lanes):
            if is_chosen(lane, selection):
                _plan_lane(plan, channel, lane)
    if not plan.partitions and not plan.failed and not plan.misplaced and clock is None:
        raise LakeError("no bronze hour fits the selection", where=str(selection.bronze), fix="see --start, --end")
    return plan


def _plan_lane(plan: Plan, channel: str, lane: Lane) -> None:
    selection, config = plan.selection, plan.selection.config
    select = silver_names(channel, selection.features or config.features)
    aims: dict[tuple[str, ...], Aim] = {}
    holding = Holding(channel, config.settings_of(lane), config.params_of(lane))
    listed = plan.listing(channel).lanes[lane]
    hours = set(listed)
    if channel == "orderbook" and config.settings_of(lane).sample:
        # the stamp decides the partition: the last interval ends in the next hour, and gaps are filled beyond
        hours |= {h + k for h in hours for k in range(1, 2 + config.settings_of(lane).sample_reach_us // HOUR)}
    else:
        hours |= _sampled_before(plan, channel, lane, hours)
    before, broken, last_record = None, False, None
    records = read_commits(plan.silver, channel, lane, hours)
    plan.files.learn([s for h, segments in listed.items() if is_within(h, selection) for s in segments])
    chained = sorted({c for r in records.values() if r is not None and r.chain for c in holding.of(r).columns})
    for hour in sorted(hours):
        record = records[hour]
        held = holding.of(record)
        keep = tuple(chained) or held.columns  # a chain holds the same columns throughout
        if keep not in aims:
            settings, params = config.settings_of(lane), config.params_of(lane)
            aims[keep] = aim_of(build_graph(channel, select, keep=keep, settings=settings, params=params), lane, config)
        aim = aims[keep]
        graph = aim.graph
        cutoff = _cutoff(plan, channel, lane, hour, graph, record)
        if is_within(hour, selection) and cutoff != _NOT_YET:
            why, kept = _reasons(plan, channel, lane, hour, aim, record, cutoff, held)
            if held.orphans and why:
                plan.failed.append(Outcome(channel, lane, hour, error=f"{held.error} ({'; '.join(why)})"))
                before, last_record = hour, record
                continue
            if graph.unbounded and not why:
                why = _chain_reasons(record, last_record)
            conditional = graph.unbounded and broken and not why
            link = before if graph.unbounded else None
            until = None if record is None else record.cutoff or (hour + 1) * HOUR
            plan.partitions.append(
                Planned(channel, lane, hour, tuple(why), tuple(aim.columns), cutoff, link, until, kept, conditional)
            )
            broken = broken or bool(why)
            if held.orphans:
                _note_orphans(plan, channel, held)
            if record and not why:
                plan.known.update({q.path: q for q in record.quarantined})
        before, last_record = hour, record


def _note_orphans(plan: Plan, channel: str, held: Held) -> None:
    names = ", ".join(held.orphans[:4]) + (", ..." if len(held.orphans) > 4 else "")
    text = f"{channel}: no feature makes {names} any more (a package that is gone?); partitions with it stay"
    plan.notices += [] if text in plan.notices else [text]


def _sampled_before(plan: Plan, channel: str, lane: Lane, hours: set[int]) -> set[int]:
    """Hours without bronze that hold the end of a sample which is no longer asked for: they become empty."""
    after = {h + 1 for h in hours} - hours
    records = read_commits(plan.silver, channel, lane, after)
    return {h for h, record in records.items() if record is not None and record.settings.get("sample")}


_NOT_YET = -1


def _cutoff(plan: Plan, channel: str, lane: Lane, hour: int, graph: Graph, record: Commit | None) -> int | None:
    """Up to which time an hour is complete: None all of it, ``_NOT_YET`` nothing. Never lowered."""
    if plan.clock is None or (record is not None and record.cutoff is None):
        return None
    end = (hour + 1) * HOUR
    found = min(plan.complete(channel, lane, c) for c in inputs_of(graph, hour).of(channel))
    found = max(found, record.cutoff or 0) if record else found
    return None if found >= end else found if found > hour * HOUR else _NOT_YET


def _task_of(p: Planned) -> tuple[Any, ...]:
    """What partitions of one task have in common."""
    return p.channel, p.lane, p.columns, p.kept


def _chain_reasons(record: Commit | None, before: Commit | None) -> list[str]:
    if record is None or before is None:
        return []
    broken = broken_links(record, before)
    return [f"{', '.join(broken)}: the partition before ends in another state"] if broken else []


def _reasons(
    plan: Plan, channel: str, lane: Lane, hour: int, aim: Aim, record: Commit | None, cutoff: int | None, held: Held
) -> tuple[list[str], tuple[str, ...]]:
    """Why a partition is stale, in words for ``features plan``; and which of its columns hold nevertheless."""
    silver, graph = plan.silver, aim.graph
    path, beside = partition_path(silver, channel, lane, hour), commit_path(silver, channel, lane, hour)
    stat = stat_of(path)
    found = reasons.output_reasons(plan.files, path, stat, beside, record)
    if record is None or stat is None:
        return found, ()
    whole = not found and record.cutoff is None and not record.quarantined and not record.chain
    inputs = {
        c: {hour_name(h): d for h in hours if (d := plan.digest(channel, lane, c, h))}
        for c, hours in inputs_of(graph, hour).of(channel).items()
    }
    if held.orphans:
        for c, names in record.inputs.items():  # how far back an orphan looked, its record alone knows
            today = {n: plan.digest(channel, lane, c, parse_hour(n)) for n in names}
            inputs[c] = inputs.get(c, {}) | {n: d for n, d in today.items() if d}
        record = without_orphans(record, held, aim.definition)
    found += reasons.input_reasons("bronze", inputs, record, hour_name(hour))
    found += reasons.definition_reasons(aim.definition, aim.settings, aim.columns, record)
    alike = whole and cutoff is None and not graph.unbounded and not aim.settings.get("sample") and not held.orphans
    kept = tuple(record.columns) if alike and found and keeps(aim, inputs, record) else ()
    for q in record.quarantined:
        if plan.files.fingerprint(plan.selection.bronze / q.path) != q.fingerprint:
            found.append(f"quarantined file changed: {q.path}")
    if record.cutoff is not None and not found:
        found += _growth_reasons(plan, channel, lane, hour, record.cutoff, cutoff)
    return found, kept


def _growth_reasons(plan: Plan, channel: str, lane: Lane, hour: int, held: int, cutoff: int | None) -> list[str]:
    """Whether an open hour's partition can hold more rows than those before ``held``."""
    if cutoff is None:
        return ["the hour is complete"]
    for segment in plan.segments(channel, lane, channel, hour):
        known = plan.files.inspect(segment)
        if known is not None and known.rows and known.high >= held and known.low < cutoff:
            return [f"rows up to {np.datetime64(cutoff, 'us')} are complete"] if cutoff > held else []
    return []
