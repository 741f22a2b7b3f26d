"""Commit records: what a partition was made from. The plan compares them with bronze, as ``make`` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tickstate.lake.digest import fingerprint
from tickstate.lake.errors import BadFile
from tickstate.lake.files import write_bytes
from tickstate.lake.names import Lane, time_folder
from tickstate.lake.store import Place, at_once, is_remote

FORMAT = 2
"""Of records, and of what decides rows beside features (order, flags, keys). Raised when one of them changes."""


class Quarantined(msgspec.Struct, frozen=True, order=True):
    """A bronze file that was left out, why, and the hash of its bytes as they were."""

    path: str
    reason: str
    detail: str
    fingerprint: str = ""


class Link(msgspec.Struct, frozen=True):
    """A partition's place in the chain of an unbounded feature: its state before and after, as base64 of the bytes."""

    began: str
    ended: str


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's record. Nothing in it varies between two runs that did the same."""

    format: int = FORMAT
    channel: str
    exchange: str
    symbol: str
    hour: str
    cutoff: int | None = None
    """Rows are those before this capture_ts (us); None: the hour was complete."""
    inputs: dict[str, dict[str, str]]
    """Digest of each lane-hour read, by channel and hour; lookback hours included, hours without bronze left out.

    Of a day of bars: the content hash of each hour of silver."""
    settings: dict[str, Any]
    features: dict[str, dict[str, Any]]
    """Version and parameters of every feature computed."""
    columns: list[str]
    """Feature columns written."""
    counters: dict[str, int]
    content: str
    """Content hash of the rows."""
    size: int
    """Bytes of the output file."""
    file: str = ""
    """Hash of these bytes; another library version may encode the same content in others."""
    quarantined: list[Quarantined] = []
    totals: dict[str, float] = {}
    """Of the trades: number, prints, amount, notional; thresholds of bars are derived from them."""
    chain: dict[str, Link] = {}
    """For each unbounded feature, the state it began and ended the hour with."""


def broken_links(record: Commit, before: Commit) -> list[str]:
    """Unbounded features of a partition that began elsewhere than where the partition before it ends."""
    known = before.chain
    return [name for name, link in record.chain.items() if name in known and link.began != known[name].ended]


def commit_path(root: Place, channel: str, lane: Lane, hour: int) -> Place:
    """Where the record of a partition lies: beside the channels, out of the way of readers."""
    return root / f"_commits/{channel}/{lane.folder}/{time_folder(channel, hour)}.json"


def read_commit(path: Place) -> Commit | None:
    """The record, or None where there is none that this version understands."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Commit)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def read_commits(root: Place, channel: str, lane: Lane, hours: Iterable[int]) -> dict[int, Commit | None]:
    """The records of a lane's partitions by hour."""
    hours = list(hours)
    paths = [commit_path(root, channel, lane, hour) for hour in hours]
    return dict(zip(hours, at_once(read_commit, paths, is_remote(root)), strict=True))


def write_commit(path: Place, commit: Commit) -> None:
    """Replace the record; call it after the data it speaks of is in place."""
    data = msgspec.json.format(msgspec.json.encode(commit, order="deterministic"), indent=1)
    write_bytes(path, data, "commit")


def quarantine_path(root: Place, channel: str, lane: Lane, hour: int) -> Place:
    """Where the list of a lane-hour's quarantined files lies."""
    return root / f"_quarantine/{channel}/{lane.folder}/{time_folder(channel, hour)}.json"


def write_quarantine(path: Place, found: Iterable[Quarantined]) -> None:
    """Replace a quarantine list, or remove it where nothing is quarantined (any more)."""
    found = sorted(found)
    if not found:
        path.unlink(missing_ok=True)
        return
    data = msgspec.json.format(msgspec.json.encode(found), indent=1)
    if not path.exists() or path.read_bytes() != data:
        write_bytes(path, data, "quarantine")


def read_quarantine(path: Place) -> list[Quarantined]:
    """A quarantine list; empty where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Quarantined])
    except (FileNotFoundError, msgspec.DecodeError):
        return []


def quarantined(bad: BadFile, root: Place) -> Quarantined:
    """The record of a bad file of bronze ``root``."""
    return Quarantined(bad.relative, bad.reason, bad.detail, fingerprint(root / bad.relative))
