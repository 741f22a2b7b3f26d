"""Work is what is missing or stale: bronze, configuration and features against the commit records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tickstate.features.base import near
from tickstate.features.graph import Graph, build_graph
from tickstate.lake.commit import (
    FORMAT,
    Commit,
    Quarantined,
    commit_path,
    fingerprint,
    hour_digest,
    quarantined,
    read_commit,
)  # fmt: skip
from tickstate.lake.errors import LakeError
from tickstate.lake.listing import Listing, Segment, list_bronze
from tickstate.lake.names import HOUR, Lane, hour_name, partition_path
from tickstate.lake.schema import BRONZE
from tickstate.runners.config import Config


@dataclass(frozen=True)
class Selection:
    """What a run is about: places, channels, lanes, hours, features."""

    bronze: Path
    silver: Path
    channels: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None
    features: tuple[str, ...] | None = None
    config: Config = field(default_factory=Config)


@dataclass(frozen=True)
class Span:
    """A task: hours of one lane, in order, to be computed one after the other. Names and paths only."""

    bronze: Path
    silver: Path
    channel: str
    lane: Lane
    hours: tuple[int, ...]
    segments: Mapping[int, tuple[Segment, ...]]
    """Of these hours and of those that their lookback reaches."""
    digests: Mapping[int, str]
    config: Config
    columns: tuple[str, ...]

    @cached_property
    def graph(self) -> Graph:
        """The graph of this lane, rebuilt where the task runs."""
        return build_graph(
            self.channel, (), keep=self.columns,
            settings=self.config.settings, params=self.config.of_lane(self.lane),
        )  # fmt: skip

    def inputs(self, hour: int) -> dict[int, str]:
        """Digests of the hours that a partition is made from."""
        return {h: self.digests[h] for h in input_hours(hour, self.graph.total_lookback) if h in self.digests}


@dataclass(frozen=True)
class Planned:
    """A partition of the selection, and why it must be computed (empty: it need not)."""

    channel: str
    lane: Lane
    hour: int
    reasons: tuple[str, ...]
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.channel} {self.lane} {hour_name(self.hour)}"


@dataclass
class Plan:
    """All partitions of a selection, and what was found wrong on the way."""

    selection: Selection
    partitions: list[Planned] = field(default_factory=list)
    misplaced: list[Quarantined] = field(default_factory=list)
    known: dict[str, Quarantined] = field(default_factory=dict)
    """Files that partitions which are up to date were made without, by path."""
    listings: dict[str, Listing] = field(default_factory=dict)
    digests: dict[tuple[str, Lane, int], str] = field(default_factory=dict)

    @property
    def stale(self) -> list[Planned]:
        return [p for p in self.partitions if p.reasons]

    def spans(self, longest: int) -> list[Span]:
        """Tasks of at most ``longest`` hours: runs of consecutive stale hours of a lane with the same columns."""
        groups: list[list[Planned]] = []
        for p in self.stale:
            last = groups[-1][-1] if groups else None
            follows = last is not None and (last.channel, last.lane, last.hour + 1, last.columns) == (
                p.channel, p.lane, p.hour, p.columns,
            )  # fmt: skip
            if follows and len(groups[-1]) < longest:
                groups[-1].append(p)
            else:
                groups.append([p])
        return [self._span(g) for g in groups]

    def _span(self, group: list[Planned]) -> Span:
        first, chosen = group[0], self.selection
        listing = self.listings[first.channel]
        bare = Span(
            chosen.bronze, chosen.silver, first.channel, first.lane, tuple(p.hour for p in group), {}, {},
            chosen.config, first.columns,
        )  # fmt: skip
        hours = sorted({h for p in group for h in input_hours(p.hour, bare.graph.total_lookback)})
        segments = {h: tuple(listing.segments(first.lane, h)) for h in hours}
        segments = {h: s for h, s in segments.items() if s}
        digests = {h: self.digest(first.channel, first.lane, h) for h in segments}
        return Span(
            bare.bronze, bare.silver, bare.channel, bare.lane, bare.hours, segments, digests, bare.config, bare.columns
        )

    def digest(self, channel: str, lane: Lane, hour: int) -> str:
        """The digest of a lane-hour, empty where it has no segments."""
        key = channel, lane, hour
        if key not in self.digests:
            self.digests[key] = hour_digest(self.listings[channel].segments(lane, hour))
        return self.digests[key]


def input_hours(hour: int, lookback: int) -> range:
    """The hours of bronze that a partition is made from: its own and those its lookback (us) reaches."""
    return range((hour * HOUR - lookback) // HOUR, hour + 1)


def make_plan(selection: Selection) -> Plan:
    """Compare every partition of the selection with its commit record. Reads footers, computes nothing."""
    plan = Plan(selection)
    for channel in _channels(selection):
        listing = plan.listings[channel] = list_bronze(selection.bronze, channel)
        plan.misplaced += [quarantined(bad, selection.bronze) for bad in listing.misplaced]
    lanes = {lane for listing in plan.listings.values() for lane in listing.lanes}
    _check_names("exchange", selection.exchanges, {lane.exchange for lane in lanes}, selection)
    _check_names("symbol", selection.symbols, {lane.symbol for lane in lanes}, selection)
    for channel, listing in plan.listings.items():
        for lane in sorted(listing.lanes):
            if _chosen(lane, selection):
                _plan_lane(plan, channel, lane)
    if not plan.partitions and not plan.misplaced:
        raise LakeError("no bronze hour fits the selection", where=str(selection.bronze), fix="see --start, --end")
    return plan


def _plan_lane(plan: Plan, channel: str, lane: Lane) -> None:
    selection = plan.selection
    graphs: dict[tuple[str, ...], Graph] = {}
    for hour in sorted(plan.listings[channel].lanes[lane]):
        if selection.start is not None and hour < selection.start:
            continue
        if selection.end is not None and hour >= selection.end:
            continue
        record = read_commit(commit_path(selection.silver, channel, lane, hour))
        keep = tuple(record.columns) if record else ()
        if keep not in graphs:
            graphs[keep] = build_graph(
                channel, selection.features or selection.config.features, keep=keep,
                settings=selection.config.settings, params=selection.config.of_lane(lane),
            )  # fmt: skip
        graph = graphs[keep]
        reasons = tuple(_reasons(plan, channel, lane, hour, graph, record))
        plan.partitions.append(Planned(channel, lane, hour, reasons, tuple(c.name for c in graph.columns)))
        if record and not reasons:
            plan.known.update({q.path: q for q in record.quarantined})


def _reasons(plan: Plan, channel: str, lane: Lane, hour: int, graph: Graph, record: Commit | None) -> list[str]:
    """Why a partition is stale, in words for ``features plan``."""
    path = partition_path(plan.selection.silver, channel, lane, hour)
    size = path.stat().st_size if path.exists() else None
    if record is None:
        return ["no output yet" if size is None else "no commit record"]
    if size is None:
        return ["output missing"]
    found = []
    if size != record.size:
        found.append(f"output has {size} bytes, the record says {record.size}")
    if record.format != FORMAT:
        found.append(f"written by format {record.format}, now {FORMAT}")
    found += _input_reasons(plan, channel, lane, hour, graph, record)
    found += _definition_reasons(graph, record)
    for q in record.quarantined:
        if fingerprint(plan.selection.bronze / q.path) != q.fingerprint:
            found.append(f"quarantined file changed: {q.path}")
    return found


def _input_reasons(plan: Plan, channel: str, lane: Lane, hour: int, graph: Graph, record: Commit) -> list[str]:
    now = {h: plan.digest(channel, lane, h) for h in input_hours(hour, graph.total_lookback)}
    digests = {hour_name(h): d for h, d in now.items() if d}
    before = record.inputs.get(channel, {})
    found = []
    for name in sorted(digests.keys() | before.keys()):
        own = "" if name == hour_name(hour) else " (lookback)"
        if name not in before:
            found.append(f"bronze {channel} {name}{own} is new")
        elif name not in digests:
            found.append(f"bronze {channel} {name}{own} is gone or no longer read")
        elif digests[name] != before[name]:
            found.append(f"bronze {channel} {name}{own} changed")
    return found


def _definition_reasons(graph: Graph, record: Commit) -> list[str]:
    found = []
    settings = settings_of(graph)
    for key in sorted(settings.keys() | record.settings.keys()):
        if settings.get(key) != record.settings.get(key):
            found.append(f"setting {key} was {record.settings.get(key)}, is {settings.get(key)}")
    now, before = plain(graph.definition()), record.features
    for name in sorted(now.keys() | before.keys()):
        if name not in before:
            found.append(f"feature {name} is new")
        elif name not in now:
            found.append(f"feature {name} is no longer computed")
        elif now[name]["version"] != before[name]["version"]:
            found.append(f"feature {name} was version {before[name]['version']}, is {now[name]['version']}")
        elif now[name] != before[name]:
            found.append(f"feature {name} has other parameters")
    if sorted(c.name for c in graph.columns) != sorted(record.columns):
        added = sorted({c.name for c in graph.columns} - set(record.columns))
        found.append(f"columns added: {', '.join(added[:4])}{', ...' if len(added) > 4 else ''}")
    return found


def settings_of(graph: Graph) -> dict[str, Any]:
    """The run settings that matter to a partition."""
    return {"max_staleness": graph.settings.max_staleness, "depth": graph.settings.depth}


def plain(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition as it comes back from JSON: tuples are lists."""
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(definition))


def _channels(selection: Selection) -> tuple[str, ...]:
    if not selection.bronze.is_dir():
        raise LakeError("no such folder", where=f"bronze {selection.bronze}", fix="check --bronze or --lake")
    present = [c for c in BRONZE if (selection.bronze / c).is_dir()]
    for channel in selection.channels:
        if channel not in BRONZE:
            raise LakeError(f"unknown channel {channel!r}", fix=near(channel, BRONZE))
        if channel not in present:
            raise LakeError(
                f"no folder {channel!r}", where=f"bronze {selection.bronze}",
                expected=f"{', '.join(BRONZE)}", fix=f"it has: {_has(selection.bronze)}",
            )  # fmt: skip
    if not present:
        raise LakeError(
            "no channel in it", where=f"bronze {selection.bronze}", expected=f"a folder {', '.join(BRONZE)}",
            fix=f"it has: {_has(selection.bronze)}",
        )  # fmt: skip
    return tuple(c for c in present if not selection.channels or c in selection.channels)


def _has(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _check_names(what: str, given: tuple[str, ...], known: set[str], selection: Selection) -> None:
    for name in given:
        if name not in known:
            raise LakeError(f"no {what} {name!r}", where=f"bronze {selection.bronze}", fix=near(name, known))


def _chosen(lane: Lane, selection: Selection) -> bool:
    return (not selection.exchanges or lane.exchange in selection.exchanges) and (
        not selection.symbols or lane.symbol in selection.symbols
    )
