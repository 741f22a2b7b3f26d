"""Arrow columns as numpy arrays, without a copy where there need be none."""

from __future__ import annotations

import sys
from typing import Any

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


def without_pandas() -> None:
    """For processes of our own: keep pyarrow from importing pandas, where that is installed, at its first conversion.

    It asks whether what it is given is pandas'; that takes 0.4 s and 48 MB. Who imports pandas later gets it, but
    pyarrow then takes a Series as any array: nan in it is not null.
    """
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array(np.zeros(1)).to_numpy()  # it asks once
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """An import finder that says there is none."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
