"""Where the lake's rows and the engine's columns meet: rows for the engine, tables for the writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickstate.features.engine import Engine, Rows, Values
from tickstate.features.graph import Graph
from tickstate.features.table import PARTITION, PASSED, repeated, replace_columns, to_table
from tickstate.kernels import columns
from tickstate.kernels.book import FLAGS
from tickstate.lake.arrow import int64_values, one_chunk
from tickstate.lake.book import book_rows
from tickstate.lake.feed import TradeFeed
from tickstate.lake.names import Lane, hour_time
from tickstate.lake.tape import quote_rows, trade_rows


@cache
def _flag_names() -> pa.Array:
    """Made where rows are, not at import: pyarrow imports pandas, where it is installed, for the first array of all."""
    return pa.array(FLAGS)


def rows_of(channel: str, table: pa.Table, graph: Graph) -> Rows:
    """An ordered chunk of bronze as the engine of a graph takes it: its channel's, or the trades that it joins."""
    settings = graph.settings
    if channel == "orderbook":
        return book_rows(table, settings.depth, graph.levels)
    if channel == "trades":
        return trade_rows(table, settings.contract_size, settings.inverse)
    return quote_rows(table)


def partition_table(
    graph: Graph,
    rows: Rows,
    values: Mapping[str, Values],
    lane: Lane,
    hour: int,
    first_row: int,
    extras: Iterable[str] = (),
) -> pa.Table:
    """One chunk of a partition; ``first_row`` is the ``row_id`` of its first row."""
    partition = partition_values(lane, hour)
    passed = {name: _clean(one_chunk(rows.table.column(name))) for name in (*PASSED[graph.channel], *extras)}
    return to_table(graph, passed, partition, _keys(graph.channel, rows, first_row), values)


def partition_values(lane: Lane, hour: int) -> dict[str, str | int]:
    """The six partition columns of a lane's hour."""
    time = hour_time(hour)
    return {
        "exchange": lane.exchange, "symbol": lane.symbol,
        "year": time.year, "month": time.month, "day": time.day, "hour": time.hour,
    }  # fmt: skip


def sampled_table(table: pa.Table, lane: Lane, hour: int, first_row: int) -> pa.Table:
    """Sampled rows as rows of the partition that their stamps lie in."""
    n = table.num_rows
    columns = {name: repeated(v, PARTITION[name], n) for name, v in partition_values(lane, hour).items()}
    return replace_columns(table, {**columns, "row_id": pa.array(np.arange(first_row, first_row + n))})


def push_joined(engine: Engine, feed: TradeFeed | None, rows: Rows, emit: bool = True) -> dict[str, Values]:
    """Give an engine the next rows, and the trades up to the last valid one of them."""
    times = rows.arrays["capture_ts"]
    if feed is None or not times.size:
        return engine.push(rows, emit=emit)
    for piece in feed.pieces(int(times[0])):
        engine.push_trades(piece)
    return engine.push(rows, feed.until(int(times[-1])), emit=emit)


def latency_ms(table: pa.Table) -> np.ndarray:
    """capture_ts - timestamp in milliseconds, NaN where there is no timestamp."""
    found = np.empty(table.num_rows)
    columns.latency(int64_values(table, "capture_ts"), int64_values(table, "timestamp"), found)
    unknown = table.column("timestamp")
    if unknown.null_count:
        found[one_chunk(unknown).is_null().to_numpy(zero_copy_only=False)] = np.nan
    return found


def _keys(channel: str, rows: Rows, first_row: int) -> dict[str, pa.Array]:
    n = rows.flag.shape[0]
    latency = latency_ms(rows.table)
    found = {"row_id": pa.array(np.arange(first_row, first_row + n)), "latency_ms": pa.array(latency, from_pandas=True)}
    if channel == "orderbook":
        found["book_flag"] = _flag_names().take(pa.array(rows.flag))
    return found


def _clean(array: pa.Array) -> pa.Array:
    """A passed-through column with NaN as null and without -0.0."""
    if not pa.types.is_floating(array.type):
        return array
    array = pc.add(array, 0.0)
    unknown = pc.fill_null(pc.is_nan(array), True)
    return pc.if_else(unknown, pa.scalar(None, array.type), array) if pc.any(unknown).as_py() else array
