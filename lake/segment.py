"""One bronze file: everything that can be wrong with it is found before one of its rows is used.

What cannot be known before (a damaged page of a wide column) comes as the same ``BadFile`` from the
middle of reading; the executor then starts the partition again without the file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from tickstate.kernels import order
from tickstate.lake.digest import file_digest, fingerprint
from tickstate.lake.errors import BadFile
from tickstate.lake.files import write_bytes
from tickstate.lake.listing import Segment
from tickstate.lake.names import HOUR, PARTITION_COLUMNS, hour_name, hour_time
from tickstate.lake.schema import BRONZE, check_schema
from tickstate.lake.store import (
    SETTLED,
    SETTLED_REMOTE,
    Place,
    at_once,
    fault_at,
    is_remote,
    modified_of,
    open_parquet,
    persistent,
    place,
    without_fault,
)

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH_ROWS = 32_768
MAX_DECODED_BYTES = 16 << 30
"""A file that would decode to more is refused: a few kilobytes of run lengths can claim any number of rows."""


@dataclass(frozen=True)
class Inspected:
    """A segment that passed: its time range (us), rows, and how many rows stand below an earlier one."""

    segment: Segment
    low: int
    high: int
    rows: int
    late: int
    columns: tuple[str, ...] = ()
    """Contract columns that the file has."""


class Files:
    """What is known of bronze files, remembered as long as their size and modification time stay.

    ``cache``: a file that keeps digests from run to run, so that a plan need not open what it knows.
    """

    def __init__(self, cache: Place | None = None) -> None:
        self._inspected: dict[Segment, Inspected | BadFile] = {}
        self._digests: dict[Segment, str] = {}
        self._cache = cache
        self._kept: dict[str, tuple[int, int, str]] = _read_cache(cache) if cache is not None else {}
        self._learnt, self._rests_until = False, 0.0
        self._fingerprints: dict[tuple[str, int, int], str] = {}
        self._read: dict[str, tuple[int, int, str]] = {}

    def inspect(self, segment: Segment) -> Inspected | None:
        """What reading it found; None where it is quarantined."""
        if segment not in self._inspected:
            try:
                self._inspected[segment] = persistent(lambda: inspect_segment(segment))
            except BadFile as bad:
                self._inspected[segment] = bad
        found = self._inspected[segment]
        return None if isinstance(found, BadFile) else found

    def bad(self, segment: Segment) -> BadFile | None:
        """Why it is quarantined, if it is."""
        found = self._inspected.get(segment)
        return found if isinstance(found, BadFile) else None

    def set_bad(self, segment: Segment, bad: BadFile) -> None:
        """Reading its rows showed what inspecting it could not."""
        self._inspected[segment] = bad

    def digest(self, segment: Segment) -> str:
        """Digest of a file for commit records: of its footer, the same whether reading it succeeded or not."""
        found = self._digests.get(segment)
        if found is None:
            size, modified, found = self._kept.get(segment.path, (-1, -1, ""))
            if (size, modified) != (segment.size, segment.modified):
                found = file_digest(segment)
                self._learnt = True
            self._digests[segment] = found
        return found

    def learn(self, segments: Sequence[Segment]) -> None:
        """Digests of files of one place: in an object store several at a time, each a request or two to wait for."""
        if segments and is_remote(segments[0].path):
            at_once(self.digest, [s for s in segments if s not in self._digests], remote=True)

    def look_at(self, segments: Iterable[Segment]) -> None:
        """Inspect files in an object store, several at a time; the first alone, for the kernel that it may load."""
        new = [s for s in segments if is_remote(s.path) and s not in self._inspected]
        at_once(self.inspect, new[:1], remote=True)
        at_once(self.inspect, new[1:], remote=True)

    def save(self) -> None:
        """Keep the digests for the next run. A disk that is full costs the cache, no more."""
        if self._cache is None or not self._learnt or time.monotonic() < self._rests_until:
            return
        if is_remote(self._cache):  # a watcher learns in each cycle, and all is uploaded again
            self._rests_until = time.monotonic() + 300
        now = time.time_ns()
        found = {s.path: (s.size, s.modified, d) for s, d in self._digests.items()}
        found = {path: f for path, f in {**found, **self._read}.items() if _is_settled(path, f[1], now)}
        known = {**self._kept, **found}
        with suppress(OSError):
            if known != self._kept:
                write_bytes(self._cache, msgspec.msgpack.encode(known), "cache")
        self._kept, self._learnt = known, False

    def identity(self, segment: Segment) -> str:
        """What a state knows a file by: its digest, and all bytes of one that was left out: it may be mended."""
        mended = self.fingerprint(place(segment.path)) if self.bad(segment) is not None else ""
        return self.digest(segment) + mended

    def fingerprint(self, path: Place) -> str:
        """Hash of all bytes of a file, read again only when its size or time has changed."""
        stat = without_fault(path.stat, None)
        if stat is None:
            return ""
        key = str(path), stat.st_size, modified_of(stat)
        if key not in self._fingerprints:
            self._fingerprints[key] = self._whole(path, stat) if is_remote(path) else fingerprint(path)
        return self._fingerprints[key]

    def _whole(self, path: Place, stat: Any) -> str:
        """Hash of all bytes of an object, kept like digests: in a copied lake, data may be younger than its records."""
        name, known = f"{path} bytes", (stat.st_size, stat.st_mtime_ns)
        kept = self._kept.get(name)
        if kept is not None and kept[:2] == known:
            return kept[2]
        found = fingerprint(path)
        self._read[name] = *known, found
        self._learnt = True
        return found

    def forget_missing(self, segments: Iterable[Segment]) -> None:
        """Drop what is known of files that are no longer listed."""
        listed = set(segments)
        for known in (self._inspected, self._digests):
            for segment in [s for s in tuple(known) if s not in listed]:  # a thread may still be reading ahead
                del known[segment]


def _is_settled(path: str, modified: int, now: int) -> bool:
    """Whether a file's time (ns) is long enough past: a younger one may change without its time doing so."""
    return modified < now - (SETTLED_REMOTE if is_remote(path) else SETTLED)


def _read_cache(path: Place) -> dict[str, tuple[int, int, str]]:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=dict[str, tuple[int, int, str]])
    except (OSError, msgspec.DecodeError):
        return {}


def is_unchanged(segment: Segment) -> bool:
    """Whether the file still has the size and modification time it was listed with."""
    stat = without_fault(place(segment.path).stat, None)
    if stat is None or stat.st_size != segment.size:
        return False
    return segment.modified in (modified_of(stat), stat.st_mtime_ns)  # listed with its ETag, where it has one, or not


def are_unchanged(segments: Iterable[Segment]) -> bool:
    """Whether all of them are."""
    segments = list(segments)
    return all(at_once(is_unchanged, segments, any(is_remote(s.path) for s in segments)))


def inspect_segment(segment: Segment) -> Inspected:
    """Check footer, schema, partition columns and every ``capture_ts``; raises ``BadFile``."""
    with open_segment(segment) as file:
        schema = file.schema_arrow
        check_schema(schema, segment.channel, segment.where)
        _check_size(file.metadata, segment)
        _check_partition(file, segment)
        low, high, late = _scan_times(file, segment)
        columns = tuple(c for c in BRONZE[segment.channel].read if c in schema.names)
        return Inspected(segment, low, high, file.metadata.num_rows, late, columns)


def read_batches(segment: Segment) -> Iterator[pa.RecordBatch]:
    """The contract columns of a segment, canonical types, missing optional ones as nulls."""
    types = BRONZE[segment.channel].read
    with open_segment(segment) as file:
        names = file.schema_arrow.names
        present = [c for c in types if c in names]
        try:
            # the reader is one thread of several: threads of its own cost a twentieth more and save no time
            for batch in file.iter_batches(BATCH_ROWS, columns=present, use_threads=False):
                yield _canonical(batch, types)
        except (pa.ArrowException, OSError) as error:
            raise _bad(segment, "corrupt", error) from error


def open_segment(segment: Segment) -> pq.ParquetFile:
    """Open a file, page checksums verified; raises ``BadFile`` where there is no valid footer."""
    try:
        return open_parquet(segment.path)
    except (pa.ArrowException, OSError) as error:
        raise _bad(segment, "unreadable", error) from error


def _canonical(batch: pa.RecordBatch, types: dict[str, pa.DataType]) -> pa.RecordBatch:
    arrays = []
    for name in types:
        if name not in batch.schema.names:
            arrays.append(pa.nulls(batch.num_rows, types[name]))
        else:
            array = batch.column(name)
            arrays.append(array if array.type == types[name] else array.cast(types[name]))
    return pa.RecordBatch.from_arrays(arrays, names=list(types))


def _check_size(metadata: pq.FileMetaData, segment: Segment) -> None:
    decoded = 0
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            column = group.column(c)
            decoded += max(8 * column.num_values, column.total_uncompressed_size)
    if decoded > MAX_DECODED_BYTES:
        raise BadFile(segment.where, "too_large", f"{decoded:,} bytes decoded, at most {MAX_DECODED_BYTES:,}")


def _check_partition(file: pq.ParquetFile, segment: Segment) -> None:
    """Every value of the six partition columns equals the path. Row-group statistics answer where they can."""
    time = hour_time(segment.hour)
    values = (segment.exchange, segment.symbol, time.year, time.month, time.day, time.hour)
    expected = dict(zip(PARTITION_COLUMNS, values, strict=True))
    metadata = file.metadata
    index = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    unsure = [c for c, value in expected.items() if not _statistics_say(metadata, index[c], value)]
    if not unsure:
        return
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=unsure):
            for name in unsure:
                column = batch.column(name)
                plain = column.cast(pa.string()) if name in ("exchange", "symbol") else column
                found = plain.unique().to_pylist()
                if found != [expected[name]] and found:
                    wrong = next(v for v in found if v != expected[name])
                    detail = f"column {name!r} has {wrong!r}, the path says {expected[name]!r}"
                    raise BadFile(segment.where, "path_mismatch", detail)
    except (pa.ArrowException, OSError) as error:
        raise _bad(segment, "corrupt", error) from error


def _statistics_say(metadata: pq.FileMetaData, index: int, value: object) -> bool:
    for g in range(metadata.num_row_groups):
        found = metadata.row_group(g).column(index).statistics
        if found is None or not found.has_min_max or not found.has_null_count or found.null_count:
            return False
        if found.min != value or found.max != value:
            return False
    return True


def _scan_times(file: pq.ParquetFile, segment: Segment) -> tuple[int, int, int]:
    """The lowest and the highest ``capture_ts``, and how many rows stand below an earlier one."""
    top = np.iinfo(np.int64)
    carry = np.array([top.max, top.min, 0], np.int64)
    try:
        for batch in file.iter_batches(4 * BATCH_ROWS, columns=["capture_ts"], use_threads=False):
            column = batch.column(0)
            if column.null_count:
                row = column.is_null().index(True).as_py()
                raise BadFile(segment.where, "bad_time", f"capture_ts is null in row {row} of a batch")
            order.scan_times(column.view(pa.int64()).to_numpy(), carry)
    except (pa.ArrowException, OSError) as error:
        raise _bad(segment, "corrupt", error) from error
    low, high, late = (int(v) for v in carry)
    begin = segment.hour * HOUR
    if file.metadata.num_rows and not (begin <= low and high < begin + HOUR):
        wrong = low if low < begin else high
        detail = f"capture_ts {np.datetime64(wrong, 'us')} is outside {hour_name(segment.hour)}"
        raise BadFile(segment.where, "wrong_hour", detail)
    return low, high, late


def _bad(segment: Segment, reason: str, error: BaseException) -> BaseException:
    """A finding about the file; what the operating system says of itself (EIO, EMFILE, ...) stays what it is."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    fault = fault_at(error, segment.path)
    if fault is not None:
        return fault
    return BadFile(segment.where, reason, _first_line(error))


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
