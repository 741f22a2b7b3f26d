"""What kernels keep from call to call spares work and changes no bit; and memory that is used again is nobody's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from lakes import MIDNIGHT, SECOND

from tickstate.features.base import JOINED
from tickstate.features.engine import Engine
from tickstate.features.graph import Batch, build_graph
from tickstate.features.registry import default_registry
from tickstate.kernels import _room
from tickstate.kernels.regime import RANKS, rank_in_window
from tickstate.kernels.window import SUM, SUMS, sum_windows

FEATURES = [
    f for f in (e.feature.make() for e in default_registry() if not hasattr(e.feature, "fold")) if f.new_memory()
]


def series(seed, n=90):
    """Times with gaps and equal ones, values of few kinds and nulls; trades between them."""
    draw = np.random.RandomState(seed)
    step = draw.choice((0, 1, 900_000, 5 * SECOND, 40 * SECOND, 400 * SECOND), n, p=(0.1, 0.1, 0.3, 0.3, 0.17, 0.03))
    times = MIDNIGHT + np.cumsum(step.astype(np.int64))
    traded = np.sort(draw.choice(times, n // 2)) - draw.randint(0, 2)
    found = {"capture_ts": times, f"{JOINED}capture_ts": traded}
    found[f"{JOINED}amount"] = draw.randint(1, 9, traded.size).astype(float)
    found[f"{JOINED}side"] = draw.choice((1.0, -1.0, np.nan), traded.size)
    return found, draw


def columns(feature, found, draw):
    """The feature's inputs over these rows."""
    n = found["capture_ts"].size
    for name in feature.inputs:
        if name == "spread_regime":
            found[name] = draw.choice((0.0, 1.0, 2.0, np.nan), n)
        elif name == "mid_price":
            found[name] = draw.uniform(90, 110, n)
        elif name not in found:
            found[name] = draw.choice((0.1, 0.3, 0.1 + 0.2, -2.0, 7.0, np.nan), n, p=(0.3, 0.2, 0.2, 0.1, 0.1, 0.1))
    return found


def call(batch, found, start, end, memory):
    """The kernel over the rows ``start`` .. ``end`` with all rows before them as history."""
    now = found["capture_ts"][end - 1]
    known = int(np.searchsorted(found[f"{JOINED}capture_ts"], now, side="right"))
    inputs = [found[name][: known if name.startswith(JOINED) else end] for name in batch.inputs]
    out = np.empty((len(batch.names), end - start))
    batch.kernel(*inputs, start, *memory, *batch.call, out)
    return out


@pytest.mark.kernels
@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f"{f.channel}-{f.name}")
@pytest.mark.parametrize("seed", range(4))
def test_calls_that_remember_give_the_bits_of_one_call(feature, seed):
    found, draw = series(seed)
    found, batch = columns(feature, found, draw), Batch((feature,))
    n, ends = 90, found["capture_ts"]
    whole = call(batch, found, 0, n, batch.new_memory())
    cuts = [c for c in (1, 2, 7, 30, 31, 64, 80, n) if c == n or ends[c] > ends[c - 1]]  # trades come with their row
    memory, begin, parts = batch.new_memory(), 0, []
    for end in cuts:
        parts.append(call(batch, found, begin, end, memory))
        begin = end
    np.testing.assert_array_equal(np.concatenate(parts, axis=1).view(np.int64), whole.view(np.int64))


@pytest.mark.kernels
def test_more_distinct_values_than_a_memory_holds():
    times = MIDNIGHT + np.arange(12, dtype=np.int64) * SECOND
    x, memory = np.arange(12.0) % 5, np.zeros(4, RANKS)
    whole, parts = np.empty((2, 12)), []
    rank_in_window(times, x, 0, np.zeros(9, RANKS), 60 * SECOND, 0.0, 1, 0.2, 0.8, whole)
    for end in (2, 6, 12):
        begin = sum(p.shape[1] for p in parts)
        out = np.empty((2, end - begin))
        rank_in_window(times[:end], x[:end], begin, memory, 60 * SECOND, 0.0, 1, 0.2, 0.8, out)
        parts.append(out)
        assert (memory[0]["rows"] == 0) == (end > 2)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.kernels
def test_nulls_in_the_blocks_behind_a_call():
    times, x = MIDNIGHT + np.arange(12, dtype=np.int64) * SECOND, np.arange(12.0)
    x[7] = np.nan
    out = np.empty((1, 1))
    widths = np.array([8 * SECOND])
    sum_windows(times, x, x, x, x, 11, np.zeros(1, SUMS), widths, np.array([SUM]), out)
    assert out.tolist() == [[4.0 + 5 + 6 + 8 + 9 + 10 + 11]]


def test_features_that_are_computed_together():
    graph = build_graph("orderbook")
    together = [batch.names for batch in graph.batches if len(batch.features) > 1]
    assert sorted(len(names) for names in together) == [6, 20, 47]
    assert sorted(f.name for b in graph.batches for f in b.features) == sorted(f.name for f in graph.features)
    seen: set[str] = set()
    for batch in graph.batches:
        made = {name for name in batch.inputs if name in graph.producers}
        assert made <= seen
        seen.update(batch.names)


def test_rows_that_are_skipped_empty_a_memory():
    """Without ``emit`` a feature that nobody looks back on is not run: what it remembered is not of the last row."""
    graph = build_graph("orderbook", ["spread_rank"])

    class Rows:
        def __init__(self, first, n):
            ts, ones = MIDNIGHT + (first + np.arange(n, dtype=np.int64)) * SECOND, np.ones(n, np.int64)
            ask = 101.0 + (np.arange(first, first + n) % 7)[:, None]
            self.flag, self.lead = np.zeros(n, np.uint8), 0
            self.arrays = {"capture_ts": ts, "bid_price": np.full((1, n), 100.0), "ask_price": ask}
            self.arrays |= {"bid_size": np.ones((n, 1)), "ask_size": np.ones((n, 1))}
            self.arrays |= {"bid_levels": ones, "ask_levels": ones}

    none = {name: np.empty(0, np.int64 if name == "capture_ts" else float) for name in ("capture_ts", "amount", "side")}
    whole = Engine(graph).push(Rows(0, 120), none)["spread_percentile"].data
    engine, parts = Engine(graph), []
    for first, n, emit in ((0, 40, True), (40, 40, False), (80, 40, True)):
        parts.append(engine.push(Rows(first, n), none, emit=emit))
    np.testing.assert_array_equal(parts[2]["spread_percentile"].data, whole[80:])


@pytest.mark.kernels
def test_a_block_is_used_again_when_nobody_holds_it(monkeypatch):
    monkeypatch.setattr(_room, "_kept", [])
    first = _room.empty(3, 1 << 17)
    first[:] = 1.0
    buffer = pa.py_buffer(first[1])
    second = _room.empty(3, 1 << 17)
    assert not np.shares_memory(first, second)
    del first
    assert not np.shares_memory(_room.empty(3, 1 << 17), np.frombuffer(buffer)), "Arrow holds it still"
    address = buffer.address
    del buffer
    assert _room.empty(1, 1 << 18).ctypes.data <= address
    assert _room.empty(2, 8).size == 16, "small ones are not kept"
    assert all(b.size > 16 for b in _room._kept)
    monkeypatch.setattr(_room, "_counted", False)
    kept = len(_room._kept)
    assert _room.empty(3, 1 << 17).shape == (3, 1 << 17)
    assert len(_room._kept) == kept


@pytest.mark.kernels
def test_blocks_that_nobody_uses_are_let_go(monkeypatch):
    monkeypatch.setattr(_room, "_kept", [])
    monkeypatch.setattr(_room, "IDLE", 5 << 20)
    held = [_room.empty(1, (1 << 17) * k) for k in (1, 1, 1, 1, 1, 1)]
    assert len(_room._kept) == 6
    del held
    big = _room.empty(1, 1 << 20)
    assert sum(b.nbytes for b in _room._kept) <= big.nbytes + (5 << 20)
