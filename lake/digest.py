"""Digests of bronze: what tells whether an input is still the one an output was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import xxhash

from tickstate.lake.listing import Segment
from tickstate.lake.store import Place, open_bytes, place, without_fault

TAIL = 1 << 16
"""What is read of a file's end at once: all of most footers."""


def fingerprint(path: Place) -> str:
    """Hash of a file's bytes, empty where it is gone: tells whether a quarantined file has been mended."""
    return without_fault(lambda: _hash(path) if path.is_file() else "", "")


def _hash(path: Place) -> str:
    found = xxhash.xxh3_128()
    with open_bytes(path) as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def file_digest(segment: Segment) -> str:
    """Digest of a file's Parquet footer, or where there is none of all its bytes."""
    return xxhash.xxh3_128_hexdigest(_footer(place(segment.path)))


def hour_digest(segments: Iterable[Segment], digest: Callable[[Segment], str] = file_digest) -> str:
    """Digest of a lane-hour: relative paths, sizes and footers, never times; empty without segments."""
    found = "".join([f"{s.relative}|{s.size}|{digest(s)}|" for s in segments])
    return xxhash.xxh3_128_hexdigest(found.encode()) if found else ""


def _footer(path: Place) -> bytes:
    found = without_fault(lambda: _read_footer(path), b"gone")
    return fingerprint(path).encode() if found is None else found


def _read_footer(path: Place) -> bytes | None:
    """The footer, None where there is none. A small one comes with its length: in a store each read is a request."""
    with open_bytes(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        tail = file.read(TAIL)
        length = int.from_bytes(tail[-8:-4], "little")
        if tail[-4:] != b"PAR1" or length + 12 > size:
            return None
        if length + 8 > len(tail):
            file.seek(size - 8 - length)
            return file.read(length)
        return tail[len(tail) - 8 - length : len(tail) - 8]
