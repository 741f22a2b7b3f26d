"""Arrow columns as numpy arrays, without a copy where there need be none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def plain(array: pa.Array) -> np.ndarray:
    """A null-free fixed-width array as contiguous numpy, usually a view of Arrow's own buffer."""
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False))


def int64_values(table: pa.Table, name: str) -> np.ndarray:
    """An integer or time column as int64, null as 0."""
    array = one_chunk(table.column(name)).view(pa.int64())
    return plain(pc.fill_null(array, 0) if array.null_count else array)
