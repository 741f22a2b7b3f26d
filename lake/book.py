"""From an ordered chunk of bronze order books to what the engine takes: flags, and dense levels of valid rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickstate.kernels import _room, book
from tickstate.lake.arrow import int64_values, plain

LEAD = 1
"""Columns of room before the snapshots of level arrays, so that a step to the previous one costs no copy."""


@dataclass(frozen=True)
class BookRows:
    """One chunk, ready for the engine (``flag``, ``arrays``, ``lead``), with the Arrow table it came from."""

    table: pa.Table
    flag: np.ndarray
    arrays: Mapping[str, np.ndarray]
    lead: int = LEAD

    @property
    def valid(self) -> int:
        return self.arrays["capture_ts"].shape[0]


def book_rows(table: pa.Table, depth: int, levels: int | None = None) -> BookRows:
    """Dense arrays of the first ``levels`` (all of the ``depth``) of a chunk, in one pass over its lists."""
    n = table.num_rows
    side = {name: _Side(table.column(name), sign, levels or depth) for name, sign in (("bids", 1.0), ("asks", -1.0))}
    bids, asks = side["bids"], side["asks"]
    flag = np.empty(n, np.uint8)
    book.flag_snapshots(bids.levels, asks.levels, bids.faults, asks.faults, bids.price, asks.price, LEAD, flag)
    arrays = {
        "capture_ts": int64_values(table, "capture_ts"),
        "bid_price": bids.price, "bid_size": bids.size, "ask_price": asks.price, "ask_size": asks.size,
        "bid_levels": np.minimum(bids.levels, depth), "ask_levels": np.minimum(asks.levels, depth),
    }  # fmt: skip
    if flag.any():
        valid = np.flatnonzero(flag == 0)
        behind = np.concatenate((np.arange(LEAD), valid + LEAD))
        arrays = {k: v.take(behind, axis=1) if v.ndim == 2 else v[valid] for k, v in arrays.items()}
    return BookRows(table.drop_columns(["bids", "asks"]), flag, arrays)


class _Side:
    """One side of a chunk as dense arrays, filled piece by piece: rows of several files need not be copied together."""

    def __init__(self, column: pa.ChunkedArray, sign: float, depth: int) -> None:
        n = len(column)
        self.price, self.size = _room.empty(depth, LEAD + n), _room.empty(depth, LEAD + n)
        self.levels, self.faults = np.empty(n, np.int64), np.empty(n, np.uint8)
        begin = 0
        for array in column.chunks:
            values, offsets = _flat(array)
            price, size = (plain(_child(values, name)) for name in ("price", "size"))
            end = begin + len(array)
            book.fill_side(
                offsets, price, size, sign, LEAD + begin, self.levels[begin:end], self.faults[begin:end],
                self.price, self.size,
            )  # fmt: skip
            begin = end


def _flat(array: pa.ListArray) -> tuple[pa.StructArray, np.ndarray]:
    """All values of a list array and the offsets of its rows in them."""
    values, offsets = _without_null_lists(array) if array.null_count else (array.values, np.asarray(array.offsets))
    return values, offsets.astype(np.int32, copy=False)


def _without_null_lists(array: pa.ListArray) -> tuple[pa.Array, np.ndarray]:
    """Values and offsets of a list array in which null lists are empty ones."""
    filled = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return array.flatten(), np.concatenate(([0], np.cumsum(filled)))


def _child(values: pa.StructArray, name: str) -> pa.Array:
    """A field of the level structs, NaN where the level or the field is null."""
    field = pc.struct_field(values, name) if values.null_count else values.field(name)
    return pc.fill_null(field, float("nan")) if field.null_count else field
