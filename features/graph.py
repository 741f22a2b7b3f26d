"""The graph: which features a selection needs, in which order, and how far back they reach together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tickstate.features.base import (
    JOINED,
    LEVELS,
    SECOND,
    SOURCES,
    Column,
    Feature,
    FeatureError,
    Fusion,
    Lookback,
    Settings,
    near,
)
from tickstate.features.registry import BUILT_IN, Registry, default_registry
from tickstate.kernels._jit import Kernel

DAY = 86_400 * SECOND
KEYS_GROUP = "keys"
"""Features that every partition of the channel has, whatever is selected."""


@dataclass(frozen=True)
class Tail:
    """How much of a column's past some feature reads: rows, and microseconds."""

    steps: int = 0
    microseconds: int = 0

    def __bool__(self) -> bool:
        return bool(self.steps or self.microseconds)

    def union(self, other: Tail) -> Tail:
        return Tail(max(self.steps, other.steps), max(self.microseconds, other.microseconds))


@dataclass(frozen=True)
class Batch:
    """Features that one call of a kernel computes together (``Feature.joint``, ``Feature.fusion``); most are alone."""

    features: tuple[Feature, ...]
    fusion: Fusion | None = None

    @property
    def kernel(self) -> Kernel:
        """What computes them."""
        return self.features[0].kernel if self.fusion is None else self.fusion.kernel

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that the kernel is given."""
        first = self.features[0]
        if self.fusion is not None:
            return tuple(dict.fromkeys(name for f in self.features for name in f.inputs))
        if first.joint == 1:
            return first.inputs
        columns = [f.inputs[1] for f in self.features]
        return (first.inputs[0], *columns, *columns[:1] * (first.joint - len(columns)))

    @cached_property
    def own_tail(self) -> Tail:
        """``own_tail`` of its features."""
        return own_tail(self.features[0])

    @cached_property
    def trades_tail(self) -> Tail:
        """``trades_tail`` of its features."""
        return trades_tail(self.features[0])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns in the order of the kernel's ``out`` block."""
        return tuple(name for f in self.features for name in f.names)

    @cached_property
    def call(self) -> tuple[Any, ...]:
        """The kernel's parameters."""
        calls = [f.call for f in self.features]
        if self.fusion is not None:
            return tuple(value for call in calls for value in call)
        if len(calls) == 1:
            return calls[0]
        joined = [np.concatenate(own) for own in zip(*(c[1:] for c in calls), strict=True)]
        for array in joined:
            array.flags.writeable = False
        return (calls[0][0], *joined)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        """The kernel's memory, empty."""
        return tuple(np.concatenate(own) for own in zip(*(f.new_memory() for f in self.features), strict=True))


@dataclass(frozen=True)
class Graph:
    """Features in the order they are computed, and the columns that are written."""

    channel: str
    settings: Settings
    features: tuple[Feature, ...]
    selected: frozenset[str]

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The written columns, in registry order."""
        return tuple(c for f in self.features for c in f.columns() if c.name in self.selected)

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """The features as they are computed: inputs first, those together that may be."""
        found: list[Batch] = []
        waiting: dict[tuple[Any, ...], list[Feature]] = {}
        fused = {fusion: self._fused(fusion) for fusion in {f.fusion for f in self.features} if fusion is not None}
        for feature in self.features:
            if feature.fusion is not None and feature in fused[feature.fusion]:
                if feature is fused[feature.fusion][0]:
                    found.append(Batch(fused[feature.fusion], feature.fusion))
                continue
            for key, group in list(waiting.items()):
                if any(name in feature.inputs for f in group for name in f.names):
                    found.append(Batch(tuple(waiting.pop(key))))
            if feature.joint == 1:
                found.append(Batch((feature,)))
                continue
            key = (feature.kernel, feature.inputs[0], feature.lookback(), feature.arguments()[0])
            waiting.setdefault(key, []).append(feature)
            if len(waiting[key]) == feature.joint:
                found.append(Batch(tuple(waiting.pop(key))))
        return (*found, *(Batch(tuple(group)) for group in waiting.values()))

    def _fused(self, fusion: Fusion) -> tuple[Feature, ...]:
        """The features of a fusion, none unless all are here."""
        here = {f.name: f for f in self.features if f.fusion is fusion and f.name in fusion.names}
        return tuple(here[name] for name in fusion.names) if here.keys() == set(fusion.names) else ()

    @cached_property
    def producers(self) -> dict[str, Feature]:
        """The feature behind each computed column."""
        return {name: f for f in self.features for name in f.names}

    @cached_property
    def tails(self) -> dict[str, Tail]:
        """What must be kept of each column between two chunks, by column; the clocks as long as anything."""
        found: dict[str, Tail] = {}
        for feature in self.features:
            if feature.state is not None:
                continue
            for name in feature.inputs:
                tail = trades_tail(feature) if name.startswith(JOINED) else own_tail(feature)
                clock = f"{JOINED}capture_ts" if name.startswith(JOINED) else "capture_ts"
                if tail:
                    for kept in (name, clock):
                        found[kept] = found.get(kept, Tail()).union(tail)
        return found

    @cached_property
    def levels(self) -> int:
        """How many book levels a side any feature reads; the touch at least, which says whether a row is valid."""
        read = [f.levels() for f in self.features if not set(LEVELS).isdisjoint(f.inputs)]
        return min(self.settings.depth, max((1, *read)))

    @cached_property
    def unbounded(self) -> bool:
        """Whether any feature depends on all of the past, so that partitions form a chain."""
        return any(f.lookback().unbounded for f in self.features)

    @cached_property
    def joins(self) -> bool:
        """Whether any feature reads the joined trades."""
        return any(f.joins for f in self.features)

    @cached_property
    def remembering(self) -> frozenset[str]:
        """Names of the features that must run over rows that are not written: they, or what reads them, look back."""
        needed: set[str] = set()
        wanted: set[str] = set(self.tails)
        for feature in reversed(self.features):
            if feature.state is not None or wanted.intersection(feature.names):
                needed.add(feature.name)
                wanted.update(feature.inputs)
        return frozenset(needed)

    def lookback(self, feature: Feature) -> int:
        """Microseconds before a row that its value depends on: the feature's own and the most any input adds.

        ``ofi_sum`` with windows up to 900 s on ``ofi``, one step of at most 300 s: 1200 s.
        """
        upstream = [self.lookback(self.producers[n]) for n in feature.inputs if n in self.producers]
        return feature.lookback().microseconds(self.settings) + max(upstream, default=0)

    def lookback_path(self, feature: Feature) -> tuple[tuple[Feature, int], ...]:
        """What ``lookback`` adds up: the feature and each input on the longest way, with its own microseconds."""
        own = feature.lookback().microseconds(self.settings)
        upstream = [self.producers[n] for n in feature.inputs if n in self.producers]
        farthest = max(upstream, key=self.lookback, default=None)
        beyond = self.lookback_path(farthest) if farthest is not None and self.lookback(farthest) else ()
        return ((feature, own), *beyond)

    def upstream(self, feature: Feature) -> tuple[Feature, ...]:
        """A feature and all that it reads, directly or not, in the order they are computed."""
        wanted = {feature.name}
        for f in reversed(self.features):
            if f.name in wanted:
                wanted |= {self.producers[n].name for n in f.inputs if n in self.producers}
        return tuple(f for f in self.features if f.name in wanted)

    @cached_property
    def total_lookback(self) -> int:
        """Microseconds of bronze before a partition that its rows depend on."""
        return max((self.lookback(f) for f in self.features), default=0)

    def trades_since(self, time: int) -> int:
        """The first capture_ts (us) of joined trades that rows from ``time`` (us) on depend on: alike every day."""
        of_day = time % DAY
        if of_day not in self._trades_since_of_day:
            found = min((self._trades_since(f, of_day) for f in self.features), default=of_day)
            self._trades_since_of_day[of_day] = found
        return time - of_day + self._trades_since_of_day[of_day]

    @cached_property
    def _trades_since_of_day(self) -> dict[int, int]:
        return {}

    def _trades_since(self, feature: Feature, time: int) -> int:
        found = time
        if feature.joins:
            lookback = feature.trades_lookback()
            found -= lookback.microseconds(self.settings)
            if lookback.days:
                found = min(found, (time // DAY - lookback.days + 1) * DAY)
        earlier = time - feature.lookback().microseconds(self.settings)
        upstream = [self._trades_since(self.producers[n], earlier) for n in feature.inputs if n in self.producers]
        return min([found, *upstream])

    def definition(self) -> dict[str, dict[str, Any]]:
        """What identifies the numbers: version and parameters of every feature computed."""
        return {f.name: {"version": f.version, "params": dict(f.values)} for f in self.features}


def own_tail(feature: Feature) -> Tail:
    """The past that a feature's kernel is given of its channel's rows; none where it carries a state."""
    return Tail() if feature.state is not None else _tail(feature.lookback())


def trades_tail(feature: Feature) -> Tail:
    """The past that a feature's kernel is given of the joined trades, likewise."""
    return Tail() if feature.state is not None else _tail(feature.trades_lookback())


def _tail(lookback: Lookback) -> Tail:
    return Tail(lookback.steps, round(lookback.seconds * SECOND))


def build_graph(
    channel: str,
    select: Iterable[str] | None = None,
    *,
    keep: Iterable[str] = (),
    settings: Settings | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    registry: Registry | None = None,
) -> Graph:
    """The graph of a selection: names of features, groups or columns; None selects what is on by default.

    ``keep`` are columns that are written beside the selection (those an existing partition holds).
    Raises ``FeatureError`` for an unknown name, an unknown input or a cycle.
    """
    registry = registry or default_registry()
    settings = settings or Settings()
    entries = registry.of_channel(channel)
    params = params or {}
    instances = {name: e.feature.make(settings, params.get(name)) for name, e in entries.items()}
    producers = {column: f for f in instances.values() for column in f.names}
    selected = {c for f in instances.values() if f.group == KEYS_GROUP for c in f.names}
    if select is None:
        built_in = [f for name, f in instances.items() if entries[name].package == BUILT_IN and f.default]
        selected.update(c for f in built_in for c in f.names)
    else:
        for name in select:
            selected |= _resolve(name, instances, producers)
    for column in keep:
        if column not in producers:
            raise FeatureError(
                f"column {column!r} of an existing partition has no feature any more",
                fix="install the package that made it, give its parameters as before, or write to a new place",
            )
        selected.add(column)
    order: dict[str, Feature] = {}
    for column in producers:
        if column in selected:
            _visit(producers[column], producers, order, ())
    rank = {name: i for i, name in enumerate(instances)}
    return Graph(channel, settings, _stable_order(order, producers, rank), frozenset(selected))


def _resolve(name: str, instances: Mapping[str, Feature], producers: Mapping[str, Feature]) -> set[str]:
    """The columns that a name selects."""
    found = {c for f in instances.values() if name in (f.name, f.group) for c in f.names}
    if name in producers:
        found.add(name)
    if not found:
        known = {*instances, *producers, *(f.group for f in instances.values())}
        raise FeatureError(f"unknown feature {name!r}", fix=near(name, known))
    return found


def _visit(feature: Feature, producers: Mapping[str, Feature], done: dict[str, Feature], path: tuple[str, ...]) -> None:
    """Depth first: inputs before what reads them."""
    if feature.name in done:
        return
    if feature.name in path:
        cycle = " -> ".join((*path[path.index(feature.name) :], feature.name))
        raise FeatureError(f"features read each other in a circle: {cycle}", fix="break one of these inputs")
    for name in feature.inputs:
        if name in producers:
            _visit(producers[name], producers, done, (*path, feature.name))
        elif name not in SOURCES[feature.channel]:
            known = {*producers, *SOURCES[feature.channel]}
            raise FeatureError(f"unknown input {name!r}", where=f"feature {feature.name!r}", fix=near(name, known))
    done[feature.name] = feature


def _stable_order(
    needed: Mapping[str, Feature], producers: Mapping[str, Feature], rank: Mapping[str, int]
) -> tuple[Feature, ...]:
    """Registry order where dependencies allow it, so that the schema does not depend on the selection's order."""
    waiting = sorted(needed.values(), key=lambda f: rank[f.name])
    placed: dict[str, Feature] = {}
    while waiting:
        for feature in waiting:
            before = {producers[n].name for n in feature.inputs if n in producers}
            if before <= placed.keys():
                placed[feature.name] = feature
                waiting.remove(feature)
                break
    return tuple(placed.values())
