"""The chunk engine: rows of one lane in, columns out, with everything it remembers held in plain sight.

What it remembers between two chunks is the ``State``: the tails of columns that windows and steps still
read, and the arrays that kernels carry. State is a cache: an engine that started at the lookback has
the same state, bit for bit, as one that has run for a year.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from tickstate.features.base import JOINED, SOURCES
from tickstate.features.graph import Batch, Graph, Tail
from tickstate.kernels import _room
from tickstate.kernels import columns as column_kernels

Arrays = Mapping[str, np.ndarray]


class Rows(Protocol):
    """A chunk of one lane's rows, in order.

    ``flag`` (n): 0 where a row is valid. ``arrays``: the ``SOURCES`` of the channel for the v valid rows; the
    first ``lead`` columns of each level array (l, lead + v) are room for history, for which nothing is then copied.
    """

    flag: np.ndarray
    arrays: Arrays
    lead: int


class Values(NamedTuple):
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


class History:
    """The rows of one column that later rows look back on, with room to add more without moving them each time."""

    def __init__(self, rows: np.ndarray) -> None:
        self._room, self._begin, self._end = rows, 0, rows.shape[0]

    @property
    def rows(self) -> np.ndarray:
        """What is held, oldest first: a view, good until rows are added."""
        return self._room[self._begin : self._end]

    def add(self, rows: np.ndarray) -> None:
        """Put rows behind those that are held."""
        n = rows.shape[0]
        if self._end + n > self._room.shape[0]:
            held = self._end - self._begin
            room = self._room
            if 8 * (held + n) > 7 * room.shape[0]:  # an eighth of room to move in costs few moves and little memory
                room = np.empty((5 * (held + n) // 4, *rows.shape[1:]), rows.dtype)
            room[:held] = self.rows
            self._room, self._begin, self._end = room, 0, held
        self._room[self._end : self._end + n] = rows
        self._end += n

    def keep_last(self, n: int) -> None:
        """Let go of all but the last ``n`` rows."""
        self._begin = max(self._begin, self._end - n)


class Engine:
    """Computes a graph over one lane's rows, chunk by chunk."""

    def __init__(self, graph: Graph, state: State | None = None) -> None:
        self.graph = graph
        fresh = {f.name: f.new_state() for f in graph.features if f.state is not None}
        own = State({}, fresh) if state is None else state.copy()
        self._histories = {name: History(rows) for name, rows in own.tails.items()}
        self._carried = own.carried
        self._memories: dict[str, tuple[np.ndarray, ...]] = {}

    @property
    def state(self) -> State:
        """A copy of what the engine remembers now."""
        return self.remembered.copy()

    @property
    def remembered(self) -> State:
        """What the engine remembers, good until it is given more."""
        return State({name: h.rows for name, h in self._histories.items()}, self._carried)

    def set_carried(self, carried: Mapping[str, tuple[np.ndarray, ...]]) -> None:
        """Replace what some features carry: where their chain of partitions goes on."""
        self._carried = {**self._carried, **carried}

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
        for batch in self.graph.batches:
            if emit or any(f.name in self.graph.remembering for f in batch.features):
                finished.update(self._run(batch, chunk))
            else:
                self._memories.pop(batch.names[0], None)  # it would not know of these rows
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
        for batch in self.graph.batches:
            if batch.features[0].joins and batch.features[0].state is not None:
                self._run(batch, chunk)
        self._remember(chunk, int(trades["capture_ts"][-1]))

    def _chunk(self, rows: Rows, trades: Arrays | None) -> _Chunk:
        joined = {JOINED + n: v for n, v in (trades or _NO_TRADES).items()} if self.graph.joins else {}
        return _Chunk(rows, joined, self._histories, self.graph.tails)

    def _run(self, batch: Batch, chunk: _Chunk) -> dict[str, Values]:
        feature, key = batch.features[0], batch.names[0]
        if key not in self._memories:
            self._memories[key] = batch.new_memory()
        memory = self._memories[key]
        start, inputs = chunk.inputs(batch, bool(memory))
        out = _room.empty(len(batch.names), chunk.valid)
        batch.kernel(*inputs, start, *self._carried.get(feature.name, ()), *memory, *batch.call, out)
        validity = np.empty((out.shape[0], (out.shape[1] + 7) // 8), np.uint8)
        nulls = np.empty(out.shape[0], np.int64)
        column_kernels.finish_columns(out, validity, nulls)
        out.flags.writeable = False
        columns = list(out)
        chunk.add(dict(zip(batch.names, columns, strict=True)))
        return dict(zip(batch.names, map(Values, columns, validity, nulls.tolist()), strict=True))

    def _remember(self, chunk: _Chunk, now: int) -> None:
        """Keep the tails: everything later than ``now`` - what a column's readers look back, or their steps."""
        for name, tail in self.graph.tails.items():
            if name.startswith(JOINED) or chunk.valid:
                chunk.forget(name, tail, now)
        self._histories = chunk.histories


class _Chunk:
    """The columns of one chunk, each behind the tail that is kept of it."""

    def __init__(
        self, rows: Rows, joined: Arrays, histories: dict[str, History], tails: Mapping[str, Tail]
    ) -> None:  # fmt: skip
        self.histories, self._tails, self._lead = histories, tails, rows.lead
        clocks = ("capture_ts", f"{JOINED}capture_ts")
        self._before = {name: histories[name].rows.shape[0] if name in histories else 0 for name in clocks}
        self._new = {**rows.arrays, **joined}
        self._joined: dict[str, np.ndarray] = {}
        self._roomy: dict[str, np.ndarray] = {}
        self.valid = rows.arrays["capture_ts"].shape[0]

    def add(self, columns: Arrays) -> None:
        self._new.update(columns)

    def inputs(self, batch: Batch, remembers: bool) -> tuple[int, list[np.ndarray]]:
        """``start`` and the columns that a kernel gets: new rows behind the history it looks back on.

        One that ``remembers`` gets the history of the last row before them, which it has seen. One that reads levels
        and looks back on nothing gets them with their room for history, whatever that holds.
        """
        feature = batch.features[0]
        start = self._history(batch.own_tail, "capture_ts", remembers)
        before = self._history(batch.trades_tail, f"{JOINED}capture_ts")
        room = self._lead if not batch.own_tail and any(map(self._has_levels, batch.inputs)) else 0
        arrays = []
        for name in batch.inputs:
            if room and not name.startswith(JOINED):
                array = self._behind_room(name)
            elif feature.state is not None:
                array = self._new.get(name, _NO_VALUES)
            else:
                array = self._behind(name, before if name.startswith(JOINED) else start)
            arrays.append(_read_only(array))
        return start + room, arrays

    def _history(self, tail: Tail, clock: str, remembers: bool = False) -> int:
        """How many rows of a tail the next rows look back on, or the last one of it did."""
        if not tail or not self._before.get(clock):
            return 0
        times = self.whole(clock)[: self._before[clock]]
        steps = min(tail.steps, times.shape[0])
        if not tail.microseconds:
            return steps
        first = int(times[-1] if remembers else self._new["capture_ts"][0])
        return max(steps, times.shape[0] - int(times.searchsorted(first - tail.microseconds, side="right")))

    def forget(self, name: str, tail: Tail, now: int) -> None:
        """Keep of a column what rows from ``now`` on look back on."""
        clock = self.whole(f"{JOINED}capture_ts" if name.startswith(JOINED) else "capture_ts")
        keep = tail.steps
        if tail.microseconds:
            keep = max(keep, clock.shape[0] - int(clock.searchsorted(now - tail.microseconds, side="right")))
        whole = self.whole(name)
        if name in self.histories and whole.ndim == 1:
            self.histories[name].keep_last(keep)
        else:
            self.histories[name] = History(whole[..., max(0, whole.shape[-1] - keep) :].copy())

    def whole(self, name: str) -> np.ndarray:
        """A column with its tail before it."""
        if name not in self._joined:
            self._joined[name] = self._join(name)
        return self._joined[name]

    def _has_levels(self, name: str) -> bool:
        return name in self._new and self._new[name].ndim == 2

    def _behind(self, name: str, rows: int) -> np.ndarray:
        """The new rows of a column behind the last ``rows`` of its history."""
        whole = self.whole(name)
        n = self._new[name].shape[-1] - (self._lead if self._has_levels(name) else 0) + rows
        return whole if whole.shape[-1] == n else np.ascontiguousarray(whole[..., whole.shape[-1] - n :])

    def _behind_room(self, name: str) -> np.ndarray:
        """The new rows of a column behind as many others as level arrays have room for."""
        if self._has_levels(name):
            return self._new[name]
        if name not in self._roomy:
            new = self._new[name]
            self._roomy[name] = np.concatenate((np.zeros(self._lead, new.dtype), new))
        return self._roomy[name]

    def _join(self, name: str) -> np.ndarray:
        new, held = self._new[name], self.histories.get(name)
        if new.ndim == 1:
            if name not in self._tails:
                return new
            if held is None:
                held = self.histories[name] = History(np.empty(0, new.dtype))
            held.add(new)
            return held.rows
        before = 0 if held is None else held.rows.shape[1]
        if held is not None and before == self._lead:
            new[:, :before] = held.rows
            return new
        rows = new[:, self._lead :]
        if held is None and rows.flags.c_contiguous:
            return rows
        joined = _room.empty(rows.shape[0], before + rows.shape[1])
        if held is not None:
            joined[:, :before] = held.rows
        joined[:, before:] = rows
        return joined


@dataclass(frozen=True)
class _Nothing:
    flag: np.ndarray
    arrays: Arrays
    lead: int = 0


_NO_VALUES = np.empty(0)
_NO_ROWS = _Nothing(np.empty(0, np.uint8), {"capture_ts": np.empty(0, np.int64)})
_NO_TRADES = {name: np.empty(0, np.int64 if name == "capture_ts" else np.float64) for name in SOURCES["trades"]}


def _read_only(array: np.ndarray) -> np.ndarray:
    if array.flags.writeable:
        array = array[:]
        array.flags.writeable = False
    return array


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
