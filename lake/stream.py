"""An hour of a lane as ordered chunks: however it was cut into files, the same rows in the same order.

Segments that overlap in time are merged, opening only those that overlap; a segment whose times fall is
sorted whole. A chunk never divides rows of one ``capture_ts``, so that equal rows meet in one chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from tickstate.kernels import order
from tickstate.lake.arrow import int64_values
from tickstate.lake.segment import Inspected, read_batches
from tickstate.lake.tape import SOURCE, RepeatedIds

_NEVER = int(np.iinfo(np.int64).max)


@dataclass
class Counted:
    """What reading came across."""

    rows: int = 0
    duplicates: int = 0


def read_hour(
    segments: Iterable[Inspected],
    counted: Counted,
    since: int = 0,
    until: int = _NEVER,
    repeats: RepeatedIds | None = None,
) -> Iterator[pa.Table]:
    """Chunks of one hour in contract order, duplicates dropped, ``since`` <= capture_ts < ``until`` (us).

    ``repeats``: for trades, what is remembered of the ids before.
    """
    overlap = (s for s in segments if s.rows and s.high >= since and s.low < until)
    for table in _merge(sorted(overlap, key=lambda s: (s.low, s.segment))):
        times = int64_values(table, "capture_ts")
        begin, end = np.searchsorted(times, (since, until), side="left").tolist()
        table = table.slice(begin, end - begin)
        if not table.num_rows:
            if times[-1] >= until:
                return
            continue
        table = sort_rows(table)
        kept = drop_duplicates(table) if repeats is None else repeats.drop(table)
        counted.rows += kept.num_rows
        counted.duplicates += table.num_rows - kept.num_rows
        yield kept


def regroup(tables: Iterable[pa.Table], first: int, size: int) -> Iterator[pa.Table]:
    """The same rows in tables of ``size``, cut where a count from ``first`` on is a multiple of it, without a copy."""
    waiting: list[pa.Table] = []
    wanted = size - first % size
    for table in tables:
        while table.num_rows:
            part = table.slice(0, wanted)
            table = table.slice(part.num_rows)
            waiting.append(part)
            wanted -= part.num_rows
            if not wanted:
                yield pa.concat_tables(waiting)
                waiting, wanted = [], size
    if waiting:
        yield pa.concat_tables(waiting)


def sort_rows(table: pa.Table) -> pa.Table:
    """Order rows by (capture_ts, timestamp, nonce with null as 0); equal keys keep their order."""
    return table if in_key_order(table) else table.take(pa.array(np.lexsort(_keys(table)[::-1])))


def in_key_order(table: pa.Table) -> bool:
    """Whether rows ascend by (capture_ts, timestamp, nonce with null as 0)."""
    found = np.empty(1, np.int64)
    order.first_disorder(*_keys(table), found)
    return bool(found[0] == table.num_rows)


def drop_duplicates(table: pa.Table) -> pa.Table:
    """Drop rows equal in every column to an earlier row of the same ``capture_ts``; ``table`` is in order."""
    times = int64_values(table, "capture_ts")
    equal = times[1:] == times[:-1]
    if not equal.any():
        return table
    together = np.zeros(table.num_rows, bool)
    together[1:] |= equal
    together[:-1] |= equal
    rows = np.flatnonzero(together)
    group = table.take(pa.array(rows)).combine_chunks()
    lists = [_as_lists(group.column(name).chunk(0)) for name in group.column_names]
    hashes = np.zeros(rows.shape[0], np.int64)
    for offsets, bits in lists:
        order.hash_lists(offsets, bits, hashes)
    first = np.empty(rows.shape[0], np.int64)
    order.find_repeats(times[rows], hashes, first)
    same = np.ones(rows.shape[0], np.uint8)
    for offsets, bits in lists:
        order.confirm_repeats(first, offsets, bits, same)
    repeats = rows[(first != np.arange(rows.shape[0])) & (same == 1)]
    if not repeats.shape[0]:
        return table
    keep = np.ones(table.num_rows, bool)
    keep[repeats] = False
    return table.filter(pa.array(keep))


class _Cursor:
    """A segment being read: the rows at hand, and from which time on there may be more."""

    def __init__(self, inspected: Inspected) -> None:
        self.inspected = inspected
        self.table: pa.Table | None = None
        self._ahead: pa.Table | None = None
        self._batches: Iterator[pa.Table] = iter(())

    def open(self) -> None:
        """Look at the first batches."""
        self._batches = self._sorted() if self.inspected.late else self._plain()
        self._ahead = next(self._batches, None)
        self.advance()

    def advance(self) -> None:
        """Add the next batch to the rows at hand, and look at the one after it."""
        new, self._ahead = self._ahead, next(self._batches, None)
        if new is not None:
            old = self.table
            self.table = new if old is None or not old.num_rows else pa.concat_tables((old, new))

    @property
    def more_from(self) -> int:
        """No row before this time is still to come."""
        return _NEVER if self._ahead is None else int(int64_values(self._ahead.slice(0, 1), "capture_ts")[0])

    @property
    def rows(self) -> int:
        """How many are at hand."""
        return 0 if self.table is None else self.table.num_rows

    @property
    def first(self) -> int:
        """The time of the first row at hand."""
        return int(int64_values(self.table.slice(0, 1), "capture_ts")[0])

    def take_before(self, time: int) -> pa.Table:
        """Hand over the rows before ``time``."""
        cut = int(np.searchsorted(int64_values(self.table, "capture_ts"), time, side="left"))
        taken, self.table = self.table.slice(0, cut), self.table.slice(cut)
        return taken

    def _plain(self) -> Iterator[pa.Table]:
        segment = self.inspected.segment
        for batch in read_batches(segment):
            if batch.num_rows:
                table = pa.Table.from_batches([batch])
                if segment.channel == "trades":
                    table = table.append_column(SOURCE, pa.repeat(hash_text(segment.symbol), batch.num_rows))
                yield table

    def _sorted(self) -> Iterator[pa.Table]:
        yield sort_rows(pa.concat_tables(self._plain()))


def _merge(segments: list[Inspected]) -> Iterator[pa.Table]:
    """Rows of all segments, in chunks that are complete up to their last time. ``segments`` ascend by their first time.

    A step touches only those with rows before the time that it is complete to: 10,000 that overlap are no square of it.
    """
    waiting, number = deque(segments), count()
    held: list[tuple[int, int, _Cursor]] = []  # a heap, by the first row at hand
    growing: list[_Cursor] = []

    def hold(cursor: _Cursor) -> None:
        heappush(held, (cursor.first, next(number), cursor))

    while waiting or held or growing:
        more = min((c.more_from for c in growing), default=_NEVER)
        unopened = waiting[0].low if waiting else _NEVER
        ready = []
        while held and held[0][0] < min(more, unopened):
            ready.append(heappop(held)[2])
        ready.sort(key=lambda c: c.inspected.segment)
        if ready:
            yield pa.concat_tables([c.take_before(min(more, unopened)) for c in ready])
        for cursor in (c for c in ready if c.rows):
            hold(cursor)
        if waiting and unopened <= more:
            cursor = _Cursor(waiting.popleft())
            cursor.open()
            if cursor.rows:
                hold(cursor)
            growing += [cursor] if cursor.more_from != _NEVER else []
        else:
            for cursor in [c for c in growing if c.more_from == more]:
                empty = not cursor.rows
                cursor.advance()
                if empty:
                    hold(cursor)
            growing = [c for c in growing if c.more_from != _NEVER]


def _keys(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    zeros = np.zeros(table.num_rows, np.int64)
    nonce = int64_values(table, "nonce") if "nonce" in table.column_names else zeros
    return int64_values(table, "capture_ts"), int64_values(table, "timestamp"), nonce


def _as_lists(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Any column as lists of 64-bit patterns, so that one kernel hashes and compares them all.

    A scalar is a list of (is null, value), a book side of (is null, price, size, price, size, ...).
    """
    n = len(array)
    missing = array.is_null().to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_list(array.type):
        starts = np.asarray(array.offsets).astype(np.int64)
        values = array.values
        bits = np.empty((len(values), 2), np.int64)
        for c, name in enumerate(("price", "size")):
            child = pc.struct_field(values, name)
            bits[:, c] = pc.fill_null(child, np.nan).to_numpy(zero_copy_only=False).view(np.int64)
            if child.null_count:
                bits[child.is_null().to_numpy(zero_copy_only=False), c] = _NEVER  # no double has these bits by chance
        widths = np.where(missing, 0, np.diff(starts))
        offsets = np.concatenate(([0], np.cumsum(2 * widths + 1)))
        flat = np.empty(offsets[-1], np.int64)
        heads = np.zeros(offsets[-1], bool)
        heads[offsets[:-1]] = True
        flat[heads] = missing
        inside = np.repeat(starts[:-1] - np.concatenate(([0], np.cumsum(widths)[:-1])), widths) + np.arange(
            widths.sum()
        )
        flat[~heads] = bits[inside].ravel()
        return offsets, flat
    if pa.types.is_string(array.type):
        codes = array.dictionary_encode()
        words = [hash_text(v) for v in codes.dictionary.to_pylist()]
        values = np.array([*words, 0], np.int64)[pc.fill_null(codes.indices, len(words)).to_numpy()]
    elif pa.types.is_floating(array.type):
        values = pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False).view(np.int64)
    else:
        values = pc.fill_null(array.view(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return 2 * np.arange(n + 1, dtype=np.int64), np.stack((missing, values), axis=1).ravel()


def hash_text(text: str) -> int:
    """A signed 64-bit hash of a text."""
    return int(np.uint64(xxhash.xxh3_64_intdigest(text.encode())).astype(np.int64))
