"""Where the lake's rows and the engine's columns become the table of a partition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from tickstate.features.engine import Values
from tickstate.features.graph import Graph
from tickstate.features.table import PASSED, to_table
from tickstate.kernels import columns
from tickstate.kernels.book import FLAGS
from tickstate.lake.arrow import int64_values, one_chunk
from tickstate.lake.book import BookRows
from tickstate.lake.names import Lane, hour_time

_FLAG_NAMES = pa.array(FLAGS)


def partition_table(
    graph: Graph, rows: BookRows, values: Mapping[str, Values], lane: Lane, hour: int, first_row: int
) -> pa.Table:
    """One chunk of a partition; ``first_row`` is the ``row_id`` of its first row."""
    time = hour_time(hour)
    partition = {
        "exchange": lane.exchange, "symbol": lane.symbol,
        "year": time.year, "month": time.month, "day": time.day, "hour": time.hour,
    }  # fmt: skip
    passed = {name: one_chunk(rows.table.column(name)) for name in PASSED[graph.channel]}
    return to_table(graph, passed, partition, _keys(rows, first_row), values)


def _keys(rows: BookRows, first_row: int) -> dict[str, pa.Array]:
    n = rows.flag.shape[0]
    latency = np.empty(n)
    columns.latency(int64_values(rows.table, "capture_ts"), int64_values(rows.table, "timestamp"), latency)
    unknown = rows.table.column("timestamp")
    missing = one_chunk(unknown).is_null().to_numpy(zero_copy_only=False) if unknown.null_count else None
    return {
        "row_id": pa.array(np.arange(first_row, first_row + n)),
        "book_flag": _FLAG_NAMES.take(pa.array(rows.flag)),
        "latency_ms": pa.array(latency, mask=missing),
    }
