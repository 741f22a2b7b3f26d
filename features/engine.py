"""The chunk engine: rows of one lane in, columns out, with everything it remembers held in plain sight.

What it remembers between two chunks is the ``State``: the tails of columns that windows and steps still
read, and the structs that kernels carry. State is a cache: an engine that started ``total_lookback``
earlier has the same state, bit for bit, as one that has run for a year.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tickstate.features.base import Feature
from tickstate.features.graph import Graph, own_tail
from tickstate.kernels import columns as column_kernels


@dataclass(frozen=True)
class Rows:
    """A chunk of one lane's rows, in order.

    ``flag`` (n): 0 where a row is valid. ``arrays``: the ``SOURCES`` of the channel for the v valid rows; the
    first ``lead`` rows of each two-dimensional array are room for history, for which nothing is then copied.
    """

    flag: np.ndarray
    arrays: Mapping[str, np.ndarray]
    lead: int = 0

    @property
    def valid(self) -> int:
        """The number of valid rows."""
        return self.arrays["capture_ts"].shape[0]


@dataclass(frozen=True)
class Values:
    """One finished column: values (NaN where null), Arrow validity bits, number of nulls."""

    data: np.ndarray
    validity: np.ndarray
    nulls: int


@dataclass(frozen=True)
class State:
    """What the engine remembers: tails by column, carried structs by feature. Arrays only."""

    tails: Mapping[str, np.ndarray]
    carried: Mapping[str, np.ndarray]

    def copy(self) -> State:
        return State(
            {k: v.copy() for k, v in self.tails.items()}, {k: v.copy() for k, v in self.carried.items()}
        )  # fmt: skip


class Engine:
    """Computes a graph over one lane's rows, chunk by chunk."""

    def __init__(self, graph: Graph, state: State | None = None) -> None:
        self.graph = graph
        self._tails: dict[str, np.ndarray] = {}
        self._carried = {f.name: np.zeros(1, f.state) for f in graph.features if f.state is not None}
        if state is not None:
            state = state.copy()
            self._tails, self._carried = dict(state.tails), dict(state.carried)

    @property
    def state(self) -> State:
        """A copy of what the engine remembers now."""
        return State(self._tails, self._carried).copy()

    def push(self, rows: Rows, *, emit: bool = True) -> dict[str, Values]:
        """Compute the graph on the next rows. Without ``emit`` only what later rows need, and nothing is returned."""
        if rows.valid == 0:
            return {c.name: _all_null(rows.flag.shape[0]) for c in self.graph.columns} if emit else {}
        chunk = _Chunk(rows, self._tails)
        finished: dict[str, Values] = {}
        for feature in self.graph.features:
            if emit or feature.name in self.graph.remembering:
                finished.update(self._run(feature, chunk))
        self._remember(chunk)
        if not emit:
            return {}
        flagged = rows.valid != rows.flag.shape[0]
        chosen = {c.name: finished[c.name] for c in self.graph.columns}
        return {name: _spread(v, rows.flag) for name, v in chosen.items()} if flagged else chosen

    def _run(self, feature: Feature, chunk: _Chunk) -> dict[str, Values]:
        start = 0 if feature.state is not None else chunk.history(feature)
        inputs = [chunk.column(name, start) for name in feature.inputs]
        out = np.empty((len(feature.names), chunk.rows.valid))
        state = (self._carried[feature.name],) if feature.state is not None else ()
        feature.kernel(*inputs, start, *state, *feature.call, out)
        validity = np.empty((out.shape[0], (out.shape[1] + 7) // 8), np.uint8)
        nulls = np.empty(out.shape[0], np.int64)
        column_kernels.finish_columns(out, validity, nulls)
        out.flags.writeable = False
        chunk.add(dict(zip(feature.names, out, strict=True)))
        return {n: Values(out[i], validity[i], int(nulls[i])) for i, n in enumerate(feature.names)}

    def _remember(self, chunk: _Chunk) -> None:
        times = chunk.whole("capture_ts")
        for name, tail in self.graph.tails.items():
            values = chunk.whole(name)
            recent = times.shape[0] - np.searchsorted(times, times[-1] - tail.microseconds, side="right")
            keep = min(max(tail.steps, int(recent) if tail.microseconds else 0), values.shape[0])
            self._tails[name] = values[values.shape[0] - keep :].copy()


class _Chunk:
    """The columns of one chunk, each behind the tail that is kept of it."""

    def __init__(self, rows: Rows, tails: Mapping[str, np.ndarray]) -> None:
        self.rows, self._tails = rows, tails
        self._new = dict(rows.arrays)
        self._joined: dict[str, np.ndarray] = {}

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        self._new.update(columns)

    def history(self, feature: Feature) -> int:
        """How many rows of history the feature's kernel gets."""
        tail, times = own_tail(feature), self._tails.get("capture_ts")
        if times is None or (not tail.steps and not tail.microseconds):
            return 0
        first = self._new["capture_ts"][0]
        recent = times.shape[0] - int(np.searchsorted(times, first - tail.microseconds, side="right"))
        return max(min(tail.steps, times.shape[0]), recent if tail.microseconds else 0)

    def whole(self, name: str) -> np.ndarray:
        """A column with its tail before it."""
        if name not in self._joined:
            self._joined[name] = self._join(name)
        return self._joined[name]

    def column(self, name: str, start: int) -> np.ndarray:
        """A column with the last ``start`` rows of its tail before it, read-only."""
        whole = self.whole(name)
        array = whole[whole.shape[0] - self.rows.valid - start :]
        array.flags.writeable = False
        return array

    def _join(self, name: str) -> np.ndarray:
        new, tail = self._new[name], self._tails.get(name)
        lead = self.rows.lead if new.ndim == 2 else 0
        before = 0 if tail is None else tail.shape[0]
        if tail is not None and 0 < before <= lead:
            new[lead - before : lead] = tail
            return new[lead - before :]
        return new[lead:] if not before else np.concatenate((tail, new[lead:]))


def _all_null(n: int) -> Values:
    return Values(np.full(n, np.nan), np.zeros((n + 7) // 8, np.uint8), n)


def _spread(values: Values, flag: np.ndarray) -> Values:
    """A column with its flagged rows put back, as nulls."""
    n = flag.shape[0]
    out = np.empty((1, n))
    column_kernels.spread_rows(values.data, flag, out[0])
    validity, nulls = np.empty((1, (n + 7) // 8), np.uint8), np.empty(1, np.int64)
    column_kernels.finish_columns(out, validity, nulls)
    return Values(out[0], validity[0], int(nulls[0]))
