"""Digests of bronze: what tells whether an input is still the one an output was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import xxhash

from tickstate.lake.listing import Segment


def fingerprint(path: Path) -> str:
    """Hash of a file's bytes, empty where it is gone: tells whether a quarantined file has been mended."""
    try:
        if not path.is_file():
            return ""
        with open(path, "rb") as file:
            found = xxhash.xxh3_128()
            while block := file.read(1 << 20):
                found.update(block)
            return found.hexdigest()
    except OSError:
        return ""


def file_digest(segment: Segment) -> str:
    """Digest of a file's Parquet footer, or where there is none of all its bytes."""
    return xxhash.xxh3_128_hexdigest(_footer(Path(segment.path)))


def hour_digest(segments: Iterable[Segment], digest: Callable[[Segment], str] = file_digest) -> str:
    """Digest of a lane-hour: relative paths, sizes and footers, never times; empty without segments."""
    segments = list(segments)
    found = xxhash.xxh3_128()
    for s in segments:
        found.update(f"{s.relative}|{s.size}|{digest(s)}|".encode())
    return found.hexdigest() if segments else ""


def _footer(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 8))
            end = file.read(8)
            length = int.from_bytes(end[:4], "little")
            if end[4:] == b"PAR1" and length + 12 <= size:
                file.seek(size - 8 - length)
                return file.read(length)
    except OSError:
        return b"gone"
    return fingerprint(path).encode()
