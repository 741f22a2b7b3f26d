"""Order-book columns in memory on one thread, warm: kernels, arrays in and arrays out; and the same from Arrow tables.

Times are CPU times: with one thread they are those of one core that has nothing else to do.
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from busy import ROWS

from tickstate.features.base import JOINED
from tickstate.features.engine import Engine
from tickstate.features.graph import Batch, build_graph
from tickstate.lake.book import book_rows
from tickstate.lake.feed import TradeFeed
from tickstate.lake.segment import BATCH_ROWS
from tickstate.lake.tape import trade_rows

pytestmark = pytest.mark.benchmark(timer=time.process_time)

DEPTH = 20
GRAPH = build_graph("orderbook", params={"vpin": {"bucket_volume": 1_000.0}})
BOOK = build_graph("orderbook", ["structure", "mid_steps", "ofi", "ofi_sum", "mlofi_sum", "rv", "mean_relative_spread"])
"""What needs no trades: FEATURES.md 3.2, 3.3 and the plain windows of 3.4."""
FLOW = build_graph("orderbook", ["ofi", "ofi_sum", "mlofi_sum"])
"""Order flow by level and its sums over windows."""
TARGETS = {"flow": 3_000_000, "book": 500_000, "all": 500_000}


@pytest.fixture(scope="module")
def hour(busy):
    """The hour as the executor meets it: tables of a batch each, by channel."""

    def batches(channel: str) -> list[pa.Table]:
        files = sorted((busy / channel).rglob("*.parquet"))
        table = pa.concat_tables(pq.read_table(f, partitioning=None) for f in files).combine_chunks()
        return [pa.Table.from_batches([batch]) for batch in table.to_batches(BATCH_ROWS)]

    threads = pa.cpu_count()
    pa.set_cpu_count(1)
    yield {channel: batches(channel) for channel in ("orderbook", "trades")}
    pa.set_cpu_count(threads)


def chunks(hour, graph):
    """Arrays from the tables: level arrays of snapshots, and the trades up to each chunk's end where any are joined."""
    feed = TradeFeed(trade_rows(table) for table in hour["trades"])
    for table in hour["orderbook"]:
        rows = book_rows(table, DEPTH, graph.levels)
        yield rows, feed.until(int(rows.arrays["capture_ts"][-1])) if graph.joins else None


def compute(chunks, graph, see=lambda rows, trades, values: None):
    """Every kernel of a graph, chunk by chunk, with what it carries and looks back on."""
    engine = Engine(graph)
    for rows, trades in chunks:
        see(rows, trades, engine.push(rows, trades))


@pytest.fixture(scope="module")
def arrays(hour):
    """Every array of the hour that a kernel may ask for by name: sources and finished columns."""
    parts = []

    def see(rows, trades, values):
        own = {name: array[:, rows.lead :] if array.ndim == 2 else array for name, array in rows.arrays.items()}
        joined = {JOINED + name: array for name, array in trades.items()}
        parts.append({**own, **joined, **{name: v.data for name, v in values.items()}})

    compute(chunks(hour, GRAPH), GRAPH, see)
    found = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    for array in found.values():
        array.flags.writeable = False
    return found


every_graph = pytest.mark.parametrize(("what", "graph"), [("flow", FLOW), ("book", BOOK), ("all", GRAPH)])


@every_graph
def test_columns(benchmark, note, hour, what, graph):
    """From arrays to finished columns: order flow, all of the book alone, and all that are on."""
    benchmark.group = "kernels: columns"
    made = list(chunks(hour, graph))
    benchmark.pedantic(compute, args=(made, graph), rounds=9, warmup_rounds=1)
    note("columns", len(graph.columns))
    note("rows a second, median", ROWS / benchmark.stats.stats.median, at_least=TARGETS[what])
    note("rows a second, best", ROWS / benchmark.stats.stats.min)


@every_graph
def test_columns_of_tables(benchmark, note, hour, what, graph):
    """The same from Arrow tables: what the executor does between reading and writing. Wanted to reach the same."""
    benchmark.group = "kernels and level arrays: columns of Arrow tables"
    benchmark.pedantic(lambda: compute(chunks(hour, graph), graph), rounds=9, warmup_rounds=1)
    note("rows a second, median", ROWS / benchmark.stats.stats.median, at_least=TARGETS[what])


def test_level_arrays(benchmark, note, hour):
    """The part of it that is no feature: flags and dense level arrays."""
    benchmark.group = "kernels: by family"
    benchmark.pedantic(lambda: [book_rows(table, DEPTH) for table in hour["orderbook"]], rounds=9, warmup_rounds=1)
    note("ns a row", 1e9 * benchmark.stats.stats.median / ROWS)


@pytest.mark.parametrize("feature", GRAPH.features, ids=lambda f: f.name)
def test_family(benchmark, note, arrays, feature):
    """One kernel alone over the whole hour."""
    batch = Batch((feature,))
    inputs = [arrays[name] for name in batch.inputs]
    out = np.empty((len(batch.names), ROWS))

    def call():
        state = feature.new_state() if feature.state is not None else ()
        feature.kernel(*inputs, 0, *state, *batch.new_memory(), *batch.call, out)

    benchmark.group = "kernels: by family"
    benchmark.pedantic(call, rounds=9, warmup_rounds=1)
    note("ns a row", 1e9 * benchmark.stats.stats.median / ROWS)
