"""What the checks of ``checks.py`` share: the feature under check, how columns are compared, what is found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tickstate.features import versions
from tickstate.features.base import Column, Feature, FeatureError, Settings
from tickstate.features.checking_data import Chunk, Lane, lanes, run_lane
from tickstate.features.engine import Arrays, Engine
from tickstate.features.graph import Graph, build_graph
from tickstate.features.registry import BUILT_IN, Registry, default_registry
from tickstate.kernels._jit import interpreted

Columns = Mapping[str, np.ndarray]
Reference = Callable[[Feature, Lane], Mapping[str, Sequence[Any]]]
RELATIVE, OF_LARGEST = 1e-9, 1e-11
"""How far a value may be from its reference: relative to itself, and to the column's largest."""
UNREGISTERED = "not installed"


class CheckError(FeatureError):
    """A feature does not do what every feature must."""


class WaivedError(Exception):
    """A check does not apply, for the reason given."""


@dataclass(frozen=True)
class Result:
    """What a check found."""

    feature: str
    channel: str
    check: str
    outcome: str
    """passed, failed or waived"""
    reason: str = ""


class Subject:
    """A feature under check: its graph, the lanes, and what it makes of them. Each is made once, when asked for."""

    def __init__(
        self,
        feature: type[Feature],
        siblings: Iterable[type[Feature]] = (),
        *,
        registry: Registry | None = None,
        reference: Reference | None = None,
        versions_file: Path | None = None,
    ) -> None:
        self.feature, self.given_reference, self.versions_file = feature, reference, versions_file
        self._siblings, self._registry = tuple(siblings), registry
        self.checks: Mapping[str, Callable[[Any], None]] = {}

    def record(self) -> versions.Record:
        """What a versions file holds of it."""
        return versions.record_of(self.graph, self.feature.name)

    @cached_property
    def registry(self) -> Registry:
        """What the feature may read: the installed features, itself and its siblings."""
        if self._registry is not None:
            return self._registry
        return default_registry().extended(dict.fromkeys((*self._siblings, self.feature)), UNREGISTERED)

    @cached_property
    def graph(self) -> Graph:
        """The feature with what it reads and nothing else, with parameters that show values on few rows."""
        return self.graph_with(Settings())

    def graph_with(self, settings: Settings, given: Mapping[str, Any] | None = None) -> Graph:
        """The same with other settings, and some parameters of the feature as ``given``; all instances are new."""
        name, channel = self.feature.name, self.feature.channel
        examples = {n: dict(e.feature.examples) for n, e in self.registry.of_channel(channel).items()}
        examples[name] |= given or {}
        return alone(build_graph(channel, [name], settings=settings, params=examples, registry=self.registry), name)

    @property
    def instance(self) -> Feature:
        """The feature with these parameters."""
        return next(f for f in self.graph.features if f.name == self.feature.name)

    @cached_property
    def lanes(self) -> tuple[Lane, Lane]:
        """What it is run on."""
        return lanes(self.feature.channel)

    @cached_property
    def wholes(self) -> tuple[Columns, ...]:
        """Its columns over each lane, in one chunk."""
        return tuple(run_lane(self.graph, lane) for lane in self.lanes)

    @property
    def pairs(self) -> list[tuple[Lane, Columns]]:
        """The lanes with their columns."""
        return list(zip(self.lanes, self.wholes, strict=True))


def alone(graph: Graph, name: str) -> Graph:
    """The part of a graph that ``name`` needs, without the keys: nobody else's lookback helps."""
    chosen = next(f for f in graph.features if f.name == name)
    return replace(graph, features=graph.upstream(chosen), selected=frozenset(chosen.names))


def push_whole(graph: Graph, lane: Lane, given: tuple[dict[str, np.ndarray], Arrays]) -> Columns:
    """The columns of a lane in one chunk of these very arrays."""
    values = Engine(graph).push(Chunk(lane.flag, given[0], 0), given[1])
    return {name: v.data for name, v in values.items()}


def same_bits(got: Columns, want: Columns, when: str, fix: str = "", offset: int = 0) -> None:
    """Two sets of columns, bit for bit, or a ``CheckError`` with the first difference."""
    for name, values in want.items():
        if got[name].shape != values.shape:
            raise CheckError(f"{got[name].shape[0]} rows of {name!r}", where=when, expected=f"{values.shape[0]}")
        wrong = np.flatnonzero(_bits(got[name]) != _bits(values))
        if wrong.size:
            i = int(wrong[0])
            raise CheckError(
                f"{name} = {float(got[name][i])!r} at row {i + offset} ({wrong.size} of {values.size} rows differ)",
                where=when, expected=repr(float(values[i])), fix=fix,
            )  # fmt: skip


def close(column: Column, got: np.ndarray, want: Sequence[Any], when: str = "") -> None:
    """A column against its reference: nulls and texts exactly, values within the tolerance."""
    if column.categories:
        want = [None if x is None else column.categories.index(x) for x in want]
    expected = np.array([np.nan if x is None else x for x in want], np.float64)
    if expected.shape != got.shape:
        raise CheckError(f"{expected.size} values of {column.name!r} in the reference", expected=f"{got.size}")
    known = np.abs(expected[~np.isnan(expected)])
    allowed = RELATIVE * np.abs(expected) + OF_LARGEST * known.max(initial=0.0)
    wrong = np.flatnonzero((np.isnan(got) != np.isnan(expected)) | (np.abs(got - expected) > allowed))
    if wrong.size:
        i = int(wrong[0])
        raise CheckError(
            f"{column.name} = {float(got[i])!r} at the valid row {i} ({wrong.size} of {got.size} rows differ)",
            where=f"{when}against the reference", expected=repr(float(expected[i])),
        )  # fmt: skip


def agree(feature: Feature, lane: Lane, found: Columns, want: Mapping[str, Any], when: str = "") -> None:
    """Columns of a lane against those of a reference over its valid rows."""
    if set(want) != set(found):
        raise CheckError(f"columns {sorted(want)} of the reference", expected=str(sorted(found)))
    for column in feature.columns():
        close(column, found[column.name][lane.valid], want[column.name], when)


def varied(s: Subject) -> Iterator[tuple[str, Graph, Sequence[Lane]]]:
    """The feature with another ``max_staleness`` and ``depth``, and with each of its numbers halved."""
    yield "max_staleness 30", s.graph_with(Settings(max_staleness=30.0)), s.lanes
    if any(values.ndim == 2 for values in s.lanes[0].arrays.values()):
        yield "depth 3", s.graph_with(Settings(depth=3)), [lane.shallow(3) for lane in s.lanes]
    for name, value in s.instance.values:
        half = _halved(value)
        try:
            graph = s.graph_with(Settings(), {name: half})
        except FeatureError:  # too small, or no number
            continue
        yield f"{name} = {half}", graph, s.lanes


def _halved(value: Any) -> Any:
    """A number, or each of a tuple, halved; whole numbers stay whole."""
    if isinstance(value, tuple):
        return tuple(map(_halved, value))
    if isinstance(value, str | bool):
        return None
    return value // 2 if isinstance(value, int) else value / 2


@contextmanager
def interpreting() -> Iterator[None]:
    """Kernels and their helpers as plain Python, in this block: every call asks the environment."""
    before = os.environ.get("NUMBA_DISABLE_JIT")
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    try:
        yield
    finally:
        del os.environ["NUMBA_DISABLE_JIT"]
        if before is not None:
            os.environ["NUMBA_DISABLE_JIT"] = before


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float64).view(np.int64)


def held_version(s: Any, record: Callable[[], versions.Record]) -> None:
    """Raise where a versions file does not hold what the code is."""
    key = f"{s.feature.channel}/{s.feature.name}"
    built_in = s.registry.package_of(s.feature) == BUILT_IN
    if s.versions_file is None and built_in:
        raise WaivedError("held by tests/versions.json in the test suite")
    path = s.versions_file or versions.beside(s.feature)
    renew = f"features check {s.feature.name} --renew" + (f" --versions {path}" if s.versions_file else "")
    if path is None or (s.versions_file is None and not path.exists()):
        raise WaivedError(f"no {versions.FILE} beside the module; make one: {renew}")
    if interpreted():
        raise WaivedError("NUMBA_DISABLE_JIT is set: no other machine's hashes")
    wrong = versions.problem(versions.load(path).get(key), record())
    if wrong:
        raise CheckError(wrong, where=str(path), fix=f"raise the version if numbers changed, then: {renew}")
