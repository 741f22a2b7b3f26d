"""The content hash: the same for the same values, whatever library version encoded them."""

from __future__ import annotations

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
        self._hashes = {name: _ColumnHash() for name in schema.names}
        self._rows = 0

    def update(self, table: pa.Table) -> None:
        """Add the next rows."""
        for name in self._schema.names if table.num_rows else ():
            column = self._hashes[name]
            if name not in PARTITION_COLUMNS:
                row = self._rows
                for chunk in table.column(name).chunks:
                    column.update(chunk, row)
                    row += len(chunk)
            elif self._rows == 0:
                column.values.update(str(table.column(name)[0]).encode())
        self._rows += table.num_rows

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        whole = xxhash.xxh3_128(f"{self._rows}".encode())
        for field in self._schema:
            whole.update(f"|{field.name}:{field.type}:{self._hashes[field.name].hexdigest()}".encode())
        return whole.hexdigest()


class _ColumnHash:
    def __init__(self) -> None:
        self.values, self.lengths, self.nulls = xxhash.xxh3_128(), xxhash.xxh3_128(), xxhash.xxh3_128()

    def update(self, array: pa.Array, first_row: int) -> None:
        if array.null_count:
            missing = array.is_null().to_numpy(zero_copy_only=False)
            self.nulls.update((first_row + np.flatnonzero(missing)).astype(np.int64).data)
        kind = array.type
        if pa.types.is_string(kind):
            filled = pc.fill_null(array, "")
            offsets = np.frombuffer(filled.buffers()[1], np.int32)[filled.offset : filled.offset + len(filled) + 1]
            self.lengths.update(np.diff(offsets).data)
            self.values.update(memoryview(filled.buffers()[2] or b"")[offsets[0] : offsets[-1]])
        elif pa.types.is_boolean(kind):
            self.values.update(plain(pc.fill_null(array, False)).astype(np.uint8).data)
        else:
            array = array.view(pa.int64()) if pa.types.is_timestamp(kind) else array
            blank = float("nan") if pa.types.is_floating(kind) else 0
            self.values.update(plain(pc.fill_null(array, blank) if array.null_count else array).data)

    def hexdigest(self) -> str:
        return "".join(h.hexdigest() for h in (self.values, self.lengths, self.nulls))


def hash_file(path: str) -> str:
    """The content hash of a Parquet file, read back with its page checksums verified."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        found = ContentHash(file.schema_arrow)
        for batch in file.iter_batches():
            found.update(pa.Table.from_batches([batch]))
    return found.hexdigest()
