"""The chunk engine: rows of one lane in, columns out, with everything it remembers held in plain sight.

What it remembers between two chunks is the ``State``: the tails of columns that windows and steps still
read, and the arrays that kernels carry. State is a cache: an engine that started at the lookback has
the same state, bit for bit, as one that has run for a year.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tickstate.features.base import JOINED, SOURCES, Feature
from tickstate.features.graph import Graph, Tail, own_tail, trades_tail
from tickstate.kernels import columns as column_kernels

Arrays = Mapping[str, np.ndarray]


class Rows(Protocol):
    """A chunk of one lane's rows, in order.

    ``flag`` (n): 0 where a row is valid. ``arrays``: the ``SOURCES`` of the channel for the v valid rows; the
    first ``lead`` rows of each two-dimensional array are room for history, for which nothing is then copied.
    """

    flag: np.ndarray
    arrays: Arrays
    lead: int


@dataclass(frozen=True)
class Values:
    """One finished column: values (NaN where null), Arrow validity bits, number of nulls."""

    data: np.ndarray
    validity: np.ndarray
    nulls: int


@dataclass(frozen=True)
class State:
    """What the engine remembers: tails by column, carried arrays by feature. Arrays only."""

    tails: Arrays = field(default_factory=dict)
    carried: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    def copy(self) -> State:
        """Arrays of its own."""
        return State(
            {k: v.copy() for k, v in self.tails.items()},
            {k: tuple(a.copy() for a in v) for k, v in self.carried.items()},
        )


class Engine:
    """Computes a graph over one lane's rows, chunk by chunk."""

    def __init__(self, graph: Graph, state: State | None = None) -> None:
        self.graph = graph
        fresh = {f.name: f.new_state() for f in graph.features if f.state is not None}
        self._state = State({}, fresh) if state is None else state.copy()

    @property
    def state(self) -> State:
        """A copy of what the engine remembers now."""
        return self._state.copy()

    def set_carried(self, carried: Mapping[str, tuple[np.ndarray, ...]]) -> None:
        """Replace what some features carry: where their chain of partitions goes on."""
        self._state = State(self._state.tails, {**self._state.carried, **carried})

    def push(self, rows: Rows, trades: Arrays | None = None, *, emit: bool = True) -> dict[str, Values]:
        """Compute the graph on the next rows. Without ``emit`` only what later rows need, and nothing is returned.

        ``trades`` (a graph that joins them): the lane's good trades since the last call, up to and including the time
        of the last valid row of ``rows``; none may be later.
        """
        n = rows.flag.shape[0]
        if not rows.arrays["capture_ts"].shape[0]:
            return {c.name: _all_null(n) for c in self.graph.columns} if emit else {}
        chunk = self._chunk(rows, trades)
        finished: dict[str, Values] = {}
        for feature in self.graph.features:
            if emit or feature.name in self.graph.remembering:
                finished.update(self._run(feature, chunk))
        self._remember(chunk, int(rows.arrays["capture_ts"][-1]))
        if not emit:
            return {}
        chosen = {c.name: finished[c.name] for c in self.graph.columns}
        flagged = rows.arrays["capture_ts"].shape[0] != n
        return {name: _spread(v, rows.flag) for name, v in chosen.items()} if flagged else chosen

    def push_trades(self, trades: Arrays) -> None:
        """Take in trades before any row sees them; later rows are at or after all of them."""
        if not trades["capture_ts"].shape[0]:
            return
        chunk = self._chunk(_NO_ROWS, trades)
        for feature in self.graph.features:
            if feature.joins and feature.state is not None:
                self._run(feature, chunk)
        self._remember(chunk, int(trades["capture_ts"][-1]))

    def _chunk(self, rows: Rows, trades: Arrays | None) -> _Chunk:
        """The next chunk behind the tails, which are its own from now on: long windows are held once, not twice."""
        joined = {JOINED + n: v for n, v in (trades or _NO_TRADES).items()} if self.graph.joins else {}
        tails, self._state = dict(self._state.tails), State({}, self._state.carried)
        return _Chunk(rows, tails, joined)

    def _run(self, feature: Feature, chunk: _Chunk) -> dict[str, Values]:
        start, inputs = chunk.inputs(feature)
        out = np.empty((len(feature.names), chunk.valid))
        feature.kernel(*inputs, start, *self._state.carried.get(feature.name, ()), *feature.call, out)
        validity = np.empty((out.shape[0], (out.shape[1] + 7) // 8), np.uint8)
        nulls = np.empty(out.shape[0], np.int64)
        column_kernels.finish_columns(out, validity, nulls)
        out.flags.writeable = False
        chunk.add(dict(zip(feature.names, out, strict=True)))
        return {n: Values(out[i], validity[i], int(nulls[i])) for i, n in enumerate(feature.names)}

    def _remember(self, chunk: _Chunk, now: int) -> None:
        """Keep the tails: everything later than ``now`` - what a column's readers look back, or their steps."""
        kept = {}
        for name, tail in self.graph.tails.items():
            if name.startswith(JOINED) or chunk.valid:
                kept[name] = chunk.take_tail(name, tail, now)
            elif name in chunk.tails:
                kept[name] = chunk.tails[name]
        self._state = State(kept, self._state.carried)


class _Chunk:
    """The columns of one chunk, each behind the tail that is kept of it."""

    def __init__(self, rows: Rows, tails: dict[str, np.ndarray], joined: Arrays) -> None:
        self.tails, self._lead = tails, rows.lead
        self._clocks = {name: tails.get(name) for name in ("capture_ts", f"{JOINED}capture_ts")}
        self._new = {**rows.arrays, **joined}
        self._joined: dict[str, np.ndarray] = {}
        self.valid = rows.arrays["capture_ts"].shape[0]

    def add(self, columns: Arrays) -> None:
        self._new.update(columns)

    def inputs(self, feature: Feature) -> tuple[int, list[np.ndarray]]:
        """``start`` and the columns that the feature's kernel gets: new rows behind the history it looks back on."""
        if feature.state is not None:
            return 0, [_read_only(self._bare(name)) for name in feature.inputs]
        start = self._history(own_tail(feature), False)
        before = self._history(trades_tail(feature), True) if feature.joins else 0
        arrays = []
        for name in feature.inputs:
            whole, new = self.whole(name), self._bare(name).shape[0]
            keep = new + (before if name.startswith(JOINED) else start)
            arrays.append(_read_only(whole[whole.shape[0] - keep :]))
        return start, arrays

    def _history(self, tail: Tail, joined: bool) -> int:
        """How many rows of a tail the next rows look back on."""
        clock = self._clocks[f"{JOINED}capture_ts" if joined else "capture_ts"]
        if clock is None or tail == Tail():
            return 0
        first = int(self._new["capture_ts"][0])
        recent = clock.shape[0] - int(np.searchsorted(clock, first - tail.microseconds, side="right"))
        return max(min(tail.steps, clock.shape[0]), recent if tail.microseconds else 0)

    def take_tail(self, name: str, tail: Tail, now: int) -> np.ndarray:
        """The last rows of a column that rows from ``now`` on look back on; the column itself is let go."""
        name_of_clock = f"{JOINED}capture_ts" if name.startswith(JOINED) else "capture_ts"
        clock, values = self.whole(name_of_clock), self.whole(name)
        recent = clock.shape[0] - int(np.searchsorted(clock, now - tail.microseconds, side="right"))
        keep = min(max(tail.steps, recent if tail.microseconds else 0), values.shape[0])
        if name != name_of_clock:
            del self._joined[name]
        return values[values.shape[0] - keep :].copy()

    def whole(self, name: str) -> np.ndarray:
        """A column with its tail before it."""
        if name not in self._joined:
            self._joined[name] = self._join(name)
        return self._joined[name]

    def _bare(self, name: str) -> np.ndarray:
        """A column without its tail; without rows, none."""
        new = self._new.get(name, _NO_VALUES)
        return new[self._lead :] if new.ndim == 2 else new

    def _join(self, name: str) -> np.ndarray:
        new, tail = self._new[name], self.tails.pop(name, None)
        lead = self._lead if new.ndim == 2 else 0
        before = 0 if tail is None else tail.shape[0]
        if tail is not None and 0 < before <= lead:
            new[lead - before : lead] = tail
            return new[lead - before :]
        return new[lead:] if not before else np.concatenate((tail, new[lead:]))


@dataclass(frozen=True)
class _Nothing:
    flag: np.ndarray
    arrays: Arrays
    lead: int = 0


_NO_VALUES = np.empty(0)
_NO_ROWS = _Nothing(np.empty(0, np.uint8), {"capture_ts": np.empty(0, np.int64)})
_NO_TRADES = {name: np.empty(0, np.int64 if name == "capture_ts" else np.float64) for name in SOURCES["trades"]}


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array[:]
    view.flags.writeable = False
    return view


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
