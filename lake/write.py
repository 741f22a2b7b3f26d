"""The deterministic Parquet writer: the same rows give the same file, however they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tickstate.kernels import _room
from tickstate.lake.arrow import one_chunk
from tickstate.lake.behind import Behind
from tickstate.lake.content import ContentHash
from tickstate.lake.digest import fingerprint
from tickstate.lake.errors import LakeError, StoreError
from tickstate.lake.files import replacing, step
from tickstate.lake.store import Place, reading

ROW_GROUP_ROWS = 32_768


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """How silver and gold are written; benchmarks write their floor with the same.

    Dictionary pages for texts and constants only: doubles of features seldom repeat. Statistics where readers
    filter by them. Measured on the real order books with ``pytest benchmarks/bench_write.py``.
    """
    texts = [f.name for f in schema if pa.types.is_string(f.type) or f.name in ("year", "month", "day", "hour")]
    filtered = [f.name for f in schema if not pa.types.is_floating(f.type)]
    return {
        "version": "2.6", "compression": "zstd", "compression_level": 1,
        "use_dictionary": texts or False, "write_statistics": filtered or False,
        "write_page_checksum": True, "data_page_version": "1.0",
    }  # fmt: skip


class PartitionWriter:
    """Takes tables of any size, writes row groups of exactly ``ROW_GROUP_ROWS`` rows (the last may be shorter).

    Encoding runs in the thread ``behind``, one row group at a time: it is the longest part of the job, needs no
    Python, and bounds memory at two row groups.
    """

    def __init__(self, path: Path, schema: pa.Schema, behind: Behind) -> None:
        self._file = pq.ParquetWriter(path, schema, **writer_options(schema))
        self._content = ContentHash(schema)
        self._waiting: list[pa.Table] = []
        self._count = 0
        self._behind = behind
        self._pending: Future[None] | None = None
        self.rows = 0
        self.size, self.file = 0, ""

    def write(self, table: pa.Table) -> None:
        """Add rows; whole row groups are written at once."""
        self._content.update(table)  # not where they are encoded, which takes the longest as it is
        self._waiting.append(table)
        self._count += table.num_rows
        self.rows += table.num_rows
        if self._count < ROW_GROUP_ROWS:
            return
        whole = pa.concat_tables(self._waiting)
        begin = 0
        while self._count >= ROW_GROUP_ROWS:
            self._flush(whole.slice(begin, ROW_GROUP_ROWS))
            begin += ROW_GROUP_ROWS
            self._count -= ROW_GROUP_ROWS
        self._waiting = [whole.slice(begin)] if self._count else []

    def finish(self) -> None:
        """Have what waits encoded as well: no more rows come."""
        if self._count:
            self._flush(pa.concat_tables(self._waiting))
            self._waiting, self._count = [], 0

    def close(self) -> str:
        """Write the footer once all is encoded, in the calling thread, not ``behind``; returns the content hash."""
        self.finish()
        self._settle()
        self._file.close()
        return self._content.hexdigest()

    def abandon(self) -> None:
        """Let go of the file without caring for its contents."""
        self._waiting = []
        if self._pending is not None:
            wait((self._pending,))
        with suppress(OSError, pa.ArrowException):  # a full disk fails the footer as well
            self._file.close()

    def _flush(self, group: pa.Table) -> None:
        self._settle()
        self._pending = self._behind.submit(partial(self._encode, group))
        self._behind.catch_up()

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _encode(self, group: pa.Table) -> None:
        self._file.write_table(_whole(group), row_group_size=ROW_GROUP_ROWS)
        step("data:rows")


def _whole(group: pa.Table) -> pa.Table:
    """A table with one chunk a column: pages must not depend on how rows came."""
    if all(column.num_chunks == 1 for column in group.itercolumns()):
        return group
    wide = [f.name for f in group.schema if f.type in _WIDE and group.column(f.name).num_chunks > 1]
    block = _room.empty(len(wide), group.num_rows)
    copied = {name: _joined(group.column(name), values) for name, values in zip(wide, block, strict=True)}
    return pa.table([copied.get(f.name) or one_chunk(group.column(f.name)) for f in group.schema], schema=group.schema)


_WIDE = (pa.float64(), pa.int64(), pa.timestamp("us", tz="UTC"))


def _joined(column: pa.ChunkedArray, values: np.ndarray) -> pa.Array:
    """The chunks of a column of 8 bytes a value, copied into ``values``."""
    begin, bits = 0, values.view(np.int64)
    for chunk in column.chunks:
        held = np.frombuffer(chunk.buffers()[1], np.int64)
        bits[begin : begin + len(chunk)] = held[chunk.offset : chunk.offset + len(chunk)]
        begin += len(chunk)
    validity = one_chunk(pc.is_valid(column)).buffers()[1] if column.null_count else None
    return pa.Array.from_buffers(column.type, begin, [validity, pa.py_buffer(values)], column.null_count)


def read_rows(path: Place) -> Iterator[pa.Table]:
    """The rows of a partition as they were written, a row group at a time."""
    with reading(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def read_schema(path: Place) -> pa.Schema:
    """The schema of a partition."""
    with reading(path) as file:
        return file.schema_arrow


def is_output(path: Place) -> bool | None:
    """Whether a Parquet file is of tickstate's making, by columns that bronze has not; None: nobody can read it."""
    try:
        return bool({"row_id", "bar_id"}.intersection(read_schema(path).names))
    except StoreError:
        raise
    except (OSError, ValueError, pa.ArrowException):
        return None


@contextmanager
def writing(
    path: Place, schema: pa.Schema, beside: Place | None = None, behind: Behind | None = None
) -> Iterator[PartitionWriter]:
    """A writer whose file takes the place of ``path`` once the block has ended well and ``close`` was called.

    Afterwards it knows the file's ``size`` and ``file``, the hash of its bytes. ``beside``: where its record lies;
    ``behind``: the thread that encodes, none: one of its own. The block may end in another thread than it began in.
    """
    if beside is not None and path.exists() and not beside.exists() and is_output(path) is False:
        fix = "move it away, or check --silver and --gold"
        raise LakeError("it is not of tickstate's making", where=str(path), expected="no file, or an output", fix=fix)
    with replacing(path, "data", beside) as temporary, _thread(behind) as thread:
        writer = PartitionWriter(temporary, schema, thread)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.size, writer.file = temporary.stat().st_size, fingerprint(temporary)


def _thread(behind: Behind | None) -> AbstractContextManager[Behind]:
    return closing(Behind("encode")) if behind is None else nullcontext(behind)
