"""The content hash: the same for the same values, whatever library version encoded them."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from tickstate.lake.arrow import plain
from tickstate.lake.names import PARTITION_COLUMNS


class ContentHash:
    """Hashes tables of one schema in order; how they were chunked does not matter.

    A column each: its values with nulls as one pattern, the lengths of texts, the rows that are null. The six
    partition columns are constant and stand in the path, so their first row speaks for all
    (``features validate`` checks each).
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._hashes = {field.name: _ColumnHash(field.type) for field in schema}
        self._rows = 0

    def update(self, table: pa.Table) -> None:
        """Add the next rows."""
        for batch in table.to_batches():
            if not batch.num_rows:
                continue
            for name, array in zip(table.column_names, batch.columns, strict=True):
                if name not in PARTITION_COLUMNS:
                    self._hashes[name].update(array, self._rows)
                elif not self._rows:
                    self._hashes[name].values.update(str(array[0]).encode())
            self._rows += batch.num_rows

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        whole = xxhash.xxh3_128(f"{self._rows}".encode())
        for field in self._schema:
            whole.update(f"|{field.name}:{field.type}:{self._hashes[field.name].hexdigest()}".encode())
        return whole.hexdigest()


class _ColumnHash:
    def __init__(self, kind: pa.DataType) -> None:
        self.values, self.lengths, self.nulls = xxhash.xxh3_128(), xxhash.xxh3_128(), xxhash.xxh3_128()
        self._width = kind.bit_width // 8 if pa.types.is_primitive(kind) else 0
        self._add = (
            self._texts if pa.types.is_string(kind) else self._flags if pa.types.is_boolean(kind) else self._numbers
        )
        self._kind = "f" if pa.types.is_floating(kind) else "i"

    def update(self, array: pa.Array, first_row: int) -> None:
        missing = _missing(array) if array.null_count else None
        if missing is not None:
            rows = np.flatnonzero(missing)
            rows += first_row
            self.nulls.update(rows)
        self._add(array, missing)

    def _texts(self, array: pa.Array, missing: np.ndarray | None) -> None:
        filled = pc.fill_null(array, "")
        offsets = np.frombuffer(filled.buffers()[1], np.int32)[filled.offset : filled.offset + len(filled) + 1]
        self.lengths.update(np.diff(offsets).data)
        self.values.update(memoryview(filled.buffers()[2] or b"")[offsets[0] : offsets[-1]])

    def _flags(self, array: pa.Array, missing: np.ndarray | None) -> None:
        self.values.update(plain(pc.fill_null(array, False)).astype(np.uint8).data)

    def _numbers(self, array: pa.Array, missing: np.ndarray | None) -> None:
        values, size = array.buffers()[1], self._width * len(array)
        if array.offset or values.size != size:
            values = values.slice(self._width * array.offset, size)
        if missing is not None:
            values = np.frombuffer(values, f"{self._kind}{self._width}").copy()
            np.copyto(values, math.nan if self._kind == "f" else 0, where=missing)
        self.values.update(values)

    def hexdigest(self) -> str:
        return "".join(h.hexdigest() for h in (self.values, self.lengths, self.nulls))


def _missing(array: pa.Array) -> np.ndarray:
    """Which rows are null."""
    bits = np.unpackbits(np.frombuffer(array.buffers()[0], np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)] == 0


def hash_file(path: str) -> str:
    """The content hash of a Parquet file, read back with its page checksums verified."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        found = ContentHash(file.schema_arrow)
        for batch in file.iter_batches():
            found.update(pa.Table.from_batches([batch]))
    return found.hexdigest()
