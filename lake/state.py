"""Saved state: arrays behind a small header, whole or not at all. A cache that may be dropped at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import xxhash

from tickstate.lake.files import write_bytes
from tickstate.lake.names import Lane
from tickstate.lake.store import Place

MAGIC = b"tickstate-state-1\n"


class BadState(Exception):  # noqa: N818 - a reason to start from the lookback, no failure
    """A state file that does not fit, with the reason."""


class _Described(msgspec.Struct):
    name: str
    dtype: list[tuple[str, str]] | str
    shape: list[int]


class _Header(msgspec.Struct):
    about: dict[str, Any]
    arrays: list[_Described]


def state_path(root: Place, channel: str, lane: Lane) -> Place:
    """Where the state of a lane lies: one file, of the latest time it was saved at."""
    return root / "_state" / channel / f"{lane.folder}.state"


def save_state(path: Place, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Replace a state file. ``about`` is JSON-like; arrays are of numbers or of fields of numbers."""
    described = [_Described(name, _dtype_text(a.dtype), list(a.shape)) for name, a in arrays.items()]
    header = msgspec.json.encode(_Header(dict(about), described))
    start, body = len(MAGIC) + 16, len(MAGIC) + 24 + len(header)
    data = bytearray(body + sum(a.nbytes for a in arrays.values()))  # copied once: a dense lane remembers a lot
    data[start:body] = len(header).to_bytes(8, "little") + header
    for array in arrays.values():
        data[body : body + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        body += array.nbytes
    data[:start] = MAGIC + xxhash.xxh3_128_digest(memoryview(data)[start:])
    write_bytes(path, data, "state")


def load_state(path: Place) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What ``save_state`` wrote; ``BadState`` where there is none, or it is torn, damaged or of another kind."""
    try:
        data = path.read_bytes()
    except OSError:
        raise BadState("there is none") from None
    start = len(MAGIC) + 16
    if not data.startswith(MAGIC) or xxhash.xxh3_128_digest(data[start:]) != data[len(MAGIC) : start]:
        raise BadState("it is damaged, or no state file of this version")
    end = start + 8 + int.from_bytes(data[start : start + 8], "little")
    header = msgspec.json.decode(data[start + 8 : end], type=_Header)
    arrays = {}
    for d in header.arrays:
        dtype = np.dtype(d.dtype if isinstance(d.dtype, str) else [tuple(f) for f in d.dtype])
        size = dtype.itemsize * int(np.prod(d.shape))
        arrays[d.name] = np.frombuffer(data[end : end + size], dtype).reshape(d.shape).copy()
        end += size
    return header.about, arrays


def _dtype_text(dtype: np.dtype) -> Any:
    return dtype.str if dtype.names is None else [(name, dtype[name].str) for name in dtype.names]
