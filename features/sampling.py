"""FEATURES.md section 6, ``sample``: the last valid row of each interval, flows summed over it.

Features are computed on every row before, so that no flow is lost. A row that stands for (k f, (k + 1) f]
is stamped (k + 1) f, the first instant at which all of it is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tickstate.features.base import Settings
from tickstate.features.table import replace_columns
from tickstate.kernels import sample as kernels

FLOWS = re.compile(r"ofi|mlofi|ofi_L\d+|signed_trade_vol|log_return")
"""Columns that add up over an interval; all others are those of its last row."""
TIME = pa.timestamp("us", tz="UTC")
ADDED = {"sample_ts": TIME, "snapshot_count": pa.int64(), "data_staleness_ms": pa.float64()}


class Sampler:
    """Takes the rows of a lane in order, gives one row an interval. Memory: one row, whatever the interval."""

    def __init__(self, settings: Settings, schema: pa.Schema) -> None:
        self._interval, self._fill_gaps = settings.sample_us, settings.fill_gaps
        self._max_staleness = settings.max_staleness_us
        self._flows = [name for name in schema.names if FLOWS.fullmatch(name)]
        self._open: int | None = None
        self._count = 0
        self._sums = {name: np.full(1, np.nan) for name in self._flows}
        self._last: pa.Table | None = None
        self._given: tuple[int, pa.Table] | None = None

    def add(self, table: pa.Table, valid: np.ndarray) -> Iterator[pa.Table]:
        """Rows of the next chunk (``valid``: which of them are); yields the intervals that are complete by them."""
        table = table.filter(pa.array(valid)) if not valid.all() else table
        if not table.num_rows:
            return
        interval = (_times(table) - 1) // self._interval
        if self._open is not None and interval[0] != self._open:
            yield from self._close()
        if self._open is None:
            self._open = int(interval[0])
        ends = np.flatnonzero(np.diff(interval)) + 1
        sums = {name: np.empty(ends.shape[0]) for name in self._flows}
        for name in self._flows:
            values = table.column(name).to_numpy()
            kernels.sum_groups(np.ascontiguousarray(values), ends, self._sums[name], sums[name])
        if ends.shape[0]:
            counts = np.diff(ends, prepend=0)
            counts[0] += self._count
            yield from self._give(table.take(pa.array(ends - 1)), interval[ends - 1], counts, sums)
            self._count = 0
        self._open = int(interval[-1])
        self._count += table.num_rows - (int(ends[-1]) if ends.shape[0] else 0)
        self._last = table.slice(table.num_rows - 1).combine_chunks()

    def finish(self, time: int) -> Iterator[pa.Table]:
        """No row up to ``time`` (us, exclusive) is missing: yields what is complete by then, stamps below ``time``."""
        before = (time - 1) // self._interval
        if self._open is not None and self._open < before:
            yield from self._close()
        if self._fill_gaps and self._given is not None:
            yield from self._fill(before)

    def _close(self) -> Iterator[pa.Table]:
        sums = {name: held.copy() for name, held in self._sums.items()}
        yield from self._give(self._last, np.array([self._open]), np.array([self._count]), sums)
        self._open, self._count = None, 0
        for held in self._sums.values():
            held[0] = np.nan

    def _give(
        self, rows: pa.Table, interval: np.ndarray, counts: np.ndarray, sums: dict[str, np.ndarray]
    ) -> Iterator[pa.Table]:
        rows = replace_columns(rows, {n: pa.array(values + 0.0, from_pandas=True) for n, values in sums.items()})
        if not self._fill_gaps:
            yield self._stamped(rows, interval, counts)
            return
        for i in range(rows.num_rows):
            yield from self._fill(int(interval[i]))
            row = rows.slice(i, 1)
            yield self._stamped(row, interval[i : i + 1], counts[i : i + 1])
            self._given = int(interval[i]), row.combine_chunks()

    def _fill(self, before: int) -> Iterator[pa.Table]:
        """Repeat the last given row in the empty intervals before one, flows 0, up to ``max_staleness``."""
        if self._given is None:
            return
        last, row = self._given
        limit = int(_times(row)[0]) + self._max_staleness
        until = min(before, limit // self._interval)  # stamp (k + 1) f <= limit
        intervals = np.arange(last + 1, until)
        if not intervals.shape[0]:
            return
        row = replace_columns(row, {name: pa.array([0.0]) for name in self._flows})
        self._given = int(intervals[-1]), row
        rows = row.take(pa.array(np.zeros(intervals.shape[0], np.int64)))
        yield self._stamped(rows, intervals, np.zeros(intervals.shape[0], np.int64))

    def _stamped(self, rows: pa.Table, interval: np.ndarray, counts: np.ndarray) -> pa.Table:
        stamps = (interval + 1) * self._interval
        rows = rows.append_column("sample_ts", pa.array(stamps, TIME))
        rows = rows.append_column("snapshot_count", pa.array(counts))
        return rows.append_column("data_staleness_ms", pa.array((stamps - _times(rows)) / 1000.0))


def _times(table: pa.Table) -> np.ndarray:
    return table.column("capture_ts").combine_chunks().cast(pa.int64()).to_numpy()


def sampled_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of sampled rows."""
    return pa.schema([*schema, *ADDED.items()])
