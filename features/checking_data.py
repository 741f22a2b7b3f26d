"""Books, tapes and quotes for ``check_feature``: seeded, whole numbers drawn, the same on every machine.

Times repeat, burst, pause, and gap around ``max_staleness`` and the usual windows; books lose and win levels; rows
are flagged; trades lack a side; quotes lack a volume. NumPy's legacy generator, since its stream never changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise

import numpy as np

from tickstate.features.base import JOINED, SECOND, SOURCES
from tickstate.features.engine import Arrays, Engine, State
from tickstate.features.graph import DAY, Graph

MIDNIGHT = 19_944 * DAY
"""2024-08-09T00:00Z: every lane crosses it."""
DEPTH, BEFORE_ALL = 20, -(1 << 62)

_CALM = (0, 1, 250_000, *(s * SECOND for s in (1, 1, 2, 3, 5, 8, 14, 20, 31, 59)))
_GAPS = tuple(s * SECOND for s in (60, 240, 299, 300, 301, 610))
_FLAG = 3  # any flag but 0: the row is not valid


@dataclass(frozen=True)
class Chunk:
    """What ``Engine.push`` takes."""

    flag: np.ndarray
    arrays: dict[str, np.ndarray]
    lead: int


@dataclass(frozen=True)
class Lane:
    """Rows of one lane, in order: times and flags of all, arrays of the valid ones; a book with its trades."""

    channel: str
    times: np.ndarray
    flag: np.ndarray
    arrays: Arrays
    trades: Arrays

    def __len__(self) -> int:
        return self.times.shape[0]

    @cached_property
    def _valid_before(self) -> np.ndarray:
        return np.concatenate(([0], np.cumsum(self.flag == 0)))

    @property
    def valid(self) -> np.ndarray:
        """Numbers of the valid rows."""
        return np.flatnonzero(self.flag == 0)

    def rows(self, first: int, last: int) -> Lane:
        """Rows ``first`` .. ``last``, with all the trades."""
        a, b = self._valid_before[[first, last]]
        arrays = {name: values[..., a:b] for name, values in self.arrays.items()}
        return replace(self, times=self.times[first:last], flag=self.flag[first:last], arrays=arrays)

    def without_flagged(self) -> Lane:
        """The valid rows alone."""
        return replace(self, times=self.times[self.valid], flag=self.flag[self.valid])

    def shallow(self, depth: int) -> Lane:
        """The first levels alone, as with a smaller ``depth`` in the settings."""
        arrays = {
            name: values[:depth].copy() if values.ndim == 2
            else np.minimum(values, depth) if name.endswith("_levels") else values
            for name, values in self.arrays.items()
        }  # fmt: skip
        return replace(self, arrays=arrays)

    def known_at(self, time: int) -> Lane:
        """All rows, with the trades up to ``time``."""
        return replace(self, trades=self.trades_between(BEFORE_ALL, time))

    def trades_between(self, after: int, until: int) -> Arrays:
        """Trades with after < capture_ts <= until."""
        a, b = np.searchsorted(self.trades["capture_ts"], (after, until), side="right")
        return {name: values[a:b] for name, values in self.trades.items()}

    def chunk(self, first: int, last: int, lead: int = 1) -> Chunk:
        """Rows as the engine takes them: arrays of their own, room for ``lead`` of history before those of levels."""
        a, b = self._valid_before[[first, last]]
        arrays = {}
        for name, values in self.arrays.items():
            room = np.full((*values.shape[:-1], lead), np.nan)
            arrays[name] = np.hstack((room, values[:, a:b])) if values.ndim == 2 else values[a:b].copy()
        return Chunk(self.flag[first:last], arrays, lead)

    def whole_chunk(self, writable: bool) -> tuple[dict[str, np.ndarray], Arrays]:
        """Arrays of all valid rows, and the trades that go with them, each of its own: what a caller might hold."""
        last = int(self.times[self.valid[-1]])
        found = self.chunk(0, len(self), lead=0).arrays, dict(self.trades_between(BEFORE_ALL, last))
        found[1].update({name: values.copy() for name, values in found[1].items()})
        for array in (*found[0].values(), *found[1].values()):
            array.flags.writeable = writable
        return found


def run_lane(
    graph: Graph, lane: Lane, cuts: tuple[int, ...] = (), *,
    start: int = 0, begin: int = 0, since: int | None = None, reload: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The graph's columns over the rows from ``start`` on, cut before the rows ``cuts``; nulls are NaN.

    Rows from ``begin`` to ``start``, and trades from the time ``since`` on, are pushed before and not emitted. With
    ``reload`` every chunk has an engine of its own, made from bytes of the last one's state.
    """
    engine, parts, n = Engine(graph), [], len(lane)
    edges = [begin, *sorted({c for c in (*cuts, start) if begin < c < n}), n]
    given = BEFORE_ALL if since is None else since - 1
    for first, last in pairwise(edges if n > begin else [0, 0]):
        rows, trades = lane.chunk(first, last), None
        if graph.joins and rows.arrays["capture_ts"].shape[0]:
            until = int(rows.arrays["capture_ts"][-1])
            trades, given = lane.trades_between(given, until), until
        values = engine.push(rows, trades, emit=first >= start)
        if first >= start:
            parts.append(values)
        if reload:
            engine = Engine(graph, state=restored_state(engine.state))
    return {c.name: np.concatenate([p[c.name].data for p in parts]) for c in graph.columns}


def from_bytes(array: np.ndarray) -> np.ndarray:
    """The same array from its bytes."""
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape).copy()


def restored_state(state: State) -> State:
    """A state that shares nothing with ``state``: every array through its bytes."""
    return State(
        {name: from_bytes(array) for name, array in state.tails.items()},
        {name: tuple(map(from_bytes, arrays)) for name, arrays in state.carried.items()},
    )


def state_bytes(state: State) -> int:
    """How much an engine remembers."""
    arrays = [*state.tails.values(), *(a for found in state.carried.values() for a in found)]
    return sum(a.nbytes for a in arrays)


@cache
def lanes(channel: str, n: int = 128) -> tuple[Lane, Lane]:
    """Two lanes of a channel: one with everything that happens, one without a gap longer than three minutes."""
    return make_lane(channel, n, 1, gaps=0.08), make_lane(channel, n, 2, gaps=0.0)


def make_lane(channel: str, n: int, seed: int, gaps: float = 0.0, every: int = 0) -> Lane:
    """A lane of ``n`` rows; ``every``: a row every so many microseconds instead of at irregular times."""
    draw = np.random.RandomState(seed)
    times = _times(draw, n, gaps, every)
    flag = np.where(draw.randint(0, 100, n) < 6, _FLAG, 0).astype(np.uint8)
    flag[0] = 0
    good = times[flag == 0]
    make = {"orderbook": _book, "trades": _tape, "ticker": _quotes}[channel]
    tape = _times(draw, n, gaps / 2, every)
    early = MIDNIGHT + np.array([-5, -4, -3, -2, -1]) * (DAY // 2)  # what only whole days look back on
    trades = _tape(draw, np.concatenate((early[early < tape[0]], tape)))
    return Lane(channel, times, flag, make(draw, good), trades)


def _times(draw: np.random.RandomState, n: int, gaps: float, every: int) -> np.ndarray:
    steps = np.array(_CALM)[draw.randint(0, len(_CALM), n)]
    if not gaps:
        steps[: n // 2] //= 8  # dense enough for what needs 30 rows in a window,
        steps[3 * n // 4 :] *= 3  # and at last longer than the longest window
    far = draw.randint(0, 1000, n) < 1000 * gaps
    steps[far] = np.array(_GAPS)[draw.randint(0, len(_GAPS), int(far.sum()))]
    if every:
        steps[:] = every
    times = np.cumsum(steps)
    return MIDNIGHT + times - times[n // 2 if n else 0] if n else times


def _book(draw: np.random.RandomState, times: np.ndarray) -> dict[str, np.ndarray]:
    n = times.shape[0]
    middle = 10_000 + np.cumsum(draw.randint(-2, 3, n))
    found: dict[str, np.ndarray] = {"capture_ts": times}
    for side, sign in (("bid", -1), ("ask", 1)):
        few, many = draw.randint(1, 5, n), draw.randint(9, 13, n)
        levels = np.where(draw.randint(0, 10, n) == 0, few, many)
        ticks = middle[:, None] + sign * np.cumsum(draw.randint(1, 4, (n, DEPTH)), axis=1)
        absent = np.arange(DEPTH) >= levels[:, None]
        price = np.where(absent, np.nan, ticks / 100.0)
        size = np.where(absent, np.nan, draw.randint(1, 9000, (n, DEPTH)) / 1000.0)
        found[f"{side}_price"], found[f"{side}_size"] = np.ascontiguousarray(price.T), np.ascontiguousarray(size.T)
        found[f"{side}_levels"] = levels.astype(np.int64)
    still = np.flatnonzero(draw.randint(0, 8, n) == 0)  # a row that says again what the one before said
    for values in (v for name, v in found.items() if name != "capture_ts"):
        for i in still[still > 0]:
            values[..., i] = values[..., i - 1]
    return found


def _tape(draw: np.random.RandomState, times: np.ndarray) -> dict[str, np.ndarray]:
    n = times.shape[0]
    price = (10_000 + np.cumsum(draw.randint(-2, 3, n))) / 100.0
    amount = draw.randint(1, 4000, n) / 1000.0
    side = np.array([1.0, -1.0, 1.0, -1.0, np.nan])[draw.randint(0, 40, n).clip(35) - 35]
    known = draw.randint(0, 2, n) * 2.0 - 1.0
    side = np.where(np.isnan(side), np.nan, known)
    return {"capture_ts": times, "price": price, "amount": amount, "side": side,
            "quote": price * amount, "base": amount.copy()}  # fmt: skip


def _quotes(draw: np.random.RandomState, times: np.ndarray) -> dict[str, np.ndarray]:
    n = times.shape[0]
    bid = (10_000 + np.cumsum(draw.randint(-2, 3, n))) / 100.0
    volumes = [
        np.array([*np.arange(0, 40) / 8.0, np.nan, -1.0])[draw.randint(0, 42, n)] for _ in range(2)
    ]  # fmt: skip
    ask = bid + draw.randint(1, 5, n) / 100.0
    return {"capture_ts": times, "bid": bid, "ask": ask, "bid_volume": volumes[0], "ask_volume": volumes[1]}


def input_columns(lane: Lane, graph: Graph, names: tuple[str, ...]) -> dict[str, list]:
    """The inputs of a feature over the valid rows, as lists with None for NaN: what its ``reference`` is given."""
    wanted = [n for n in names if n not in SOURCES[lane.channel]]
    made = run_lane(replace(graph, selected=frozenset(wanted)), lane.without_flagged()) if wanted else {}
    arrays = {**lane.arrays, **{JOINED + n: v for n, v in lane.trades.items()}, **made}
    return {name: _plain(arrays[name]) for name in names}


def _plain(array: np.ndarray) -> list:
    if array.ndim == 2:
        return [[x for x in row if x == x] for row in array.T.tolist()]
    return [x if x == x else None for x in array.tolist()]
