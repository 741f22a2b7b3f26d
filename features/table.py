"""From the engine's columns to the Arrow table of a partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa

from tickstate.features.base import Column
from tickstate.features.engine import Values
from tickstate.features.graph import Graph
from tickstate.kernels import columns as column_kernels

TIME = pa.timestamp("us", tz="UTC")
TYPES = {
    "double": pa.float64(), "int64": pa.int64(), "int8": pa.int8(), "bool": pa.bool_(), "string": pa.string(),
}  # fmt: skip
DOUBLE = pa.float64()
_CLOCKS = {"capture_ts": TIME, "timestamp": pa.int64()}
PASSED = {
    "orderbook": {**_CLOCKS, "nonce": pa.int64()},
    "trades": {**_CLOCKS, "trade_id": pa.string(), "side": pa.string(), "price": DOUBLE, "amount": DOUBLE},
    "ticker": {**_CLOCKS, "bid": DOUBLE, "ask": DOUBLE, "bid_volume": DOUBLE, "ask_volume": DOUBLE},
}
"""Bronze columns that silver repeats, by channel."""
PARTITION = {
    "exchange": pa.string(), "symbol": pa.string(),
    "year": pa.int32(), "month": pa.int32(), "day": pa.int32(), "hour": pa.int32(),
}  # fmt: skip
_ROW = {"row_id": pa.int64(), "latency_ms": DOUBLE}
KEYS = {
    "orderbook": {"row_id": pa.int64(), "book_flag": pa.string(), "latency_ms": DOUBLE},
    "trades": _ROW,
    "ticker": _ROW,
}
"""Columns that every row has, flagged or not, by channel."""


def output_schema(graph: Graph, extras: Iterable[str] = ()) -> pa.Schema:
    """The schema of a partition: passed through (``extras`` too), partition columns, keys, the selected columns."""
    fixed = {**PASSED[graph.channel], **dict.fromkeys(extras, DOUBLE), **PARTITION, **KEYS[graph.channel]}
    return pa.schema([*fixed.items(), *((c.name, TYPES[c.dtype]) for c in graph.columns)])


def replace_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """A table with some of its columns replaced, types kept."""
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), values)
    return table


def to_table(
    graph: Graph,
    passed: Mapping[str, pa.Array],
    partition: Mapping[str, str | int],
    keys: Mapping[str, pa.Array],
    values: Mapping[str, Values],
) -> pa.Table:
    """One chunk of a partition. ``passed`` and ``keys`` give n values a column, ``partition`` one constant each."""
    n = len(keys["row_id"])
    extras = [name for name in passed if name not in PASSED[graph.channel]]
    arrays = [passed[name] for name in (*PASSED[graph.channel], *extras)]
    arrays += [repeated(partition[name], kind, n) for name, kind in PARTITION.items()]
    arrays += [keys[name] for name in KEYS[graph.channel]]
    arrays += [to_arrow(column, values[column.name]) for column in graph.columns]
    return pa.Table.from_arrays(arrays, schema=output_schema(graph, extras))


@lru_cache(16)
def repeated(value: str | int, kind: pa.DataType, n: int) -> pa.Array:
    """One value n times. Chunks of a partition have the same ones, mostly as long."""
    return pa.repeat(pa.scalar(value, kind), n)


def to_arrow(column: Column, values: Values) -> pa.Array:
    """A finished column in its declared type; doubles share the engine's memory."""
    n = values.data.shape[0]
    validity = pa.py_buffer(values.validity) if values.nulls else None
    if column.dtype == "double":
        return pa.Array.from_buffers(pa.float64(), n, [validity, pa.py_buffer(values.data)], values.nulls)
    if column.dtype == "int64":
        whole = np.empty(n, np.int64)
        column_kernels.whole_numbers(values.data, whole)
        return pa.Array.from_buffers(pa.int64(), n, [validity, pa.py_buffer(whole)], values.nulls)
    missing = np.isnan(values.data)
    whole = np.where(missing, 0.0, values.data)
    if column.dtype == "string":
        codes = pa.array(whole.astype(np.int32), mask=missing)
        return pa.array(column.categories, pa.string()).take(codes)
    kind = {"int8": np.int8, "bool": np.bool_}[column.dtype]
    return pa.array(whole.astype(kind), mask=missing)
