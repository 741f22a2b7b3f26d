"""Windows beside a peer: the sum of one column over the last 60 s, by our kernel and by polars."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from busy import ROWS

from tickstate.features.graph import build_graph

GRAPH = build_graph("orderbook", ["ofi_sum"], params={"ofi_sum": {"horizons": [60]}})
FEATURE = GRAPH.producers["ofi_sum_60s"]


@pytest.fixture(scope="module")
def column():
    """An hour of times, no two equal, and order flow."""
    rng = np.random.Generator(np.random.PCG64(5))
    times = np.cumsum(rng.integers(1, 2 * 3_600_000_000 // ROWS, ROWS))
    flow = np.round(rng.normal(0.0, 100.0, ROWS), 3)
    for array in (times, flow):
        array.flags.writeable = False
    return times, flow


def ours(times, flow):
    out = np.empty((1, ROWS))
    FEATURE.kernel(times, *[flow] * FEATURE.joint, 0, *FEATURE.new_memory(), *FEATURE.call, out)
    return out[0]


def polars(times, flow):
    frame = pl.DataFrame({"t": times, "x": flow}).with_columns(pl.col("t").cast(pl.Datetime("us")))
    return frame.select(pl.col("x").rolling_sum_by("t", "60s", closed="right")).to_series().to_numpy()


@pytest.mark.parametrize("peer", [ours, polars], ids=["tickstate", "polars"])
def test_window_sum(benchmark, note, column, peer):
    """The same sums but for the last bits, which in polars depend on where the column began."""
    benchmark.group = "peers: sum over 60 s"
    found = benchmark.pedantic(peer, args=column, rounds=9, warmup_rounds=1)
    times, flow = column
    begin = np.searchsorted(times, times - 60_000_000, side="right")
    total = np.concatenate(([0.0], np.cumsum(np.abs(flow))))
    magnitude = total[1:] - total[begin]
    assert np.all(np.abs(found - ours(times, flow)) <= 1e-11 * magnitude)
    note("ns a row", 1e9 * benchmark.stats.stats.median / ROWS)
