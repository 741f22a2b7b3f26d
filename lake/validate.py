"""The partition contract, checked on what lies there: ``features validate``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickstate.lake.arrow import int64_values
from tickstate.lake.commit import Commit, commit_path, read_commit, read_commits
from tickstate.lake.content import ContentHash
from tickstate.lake.digest import fingerprint
from tickstate.lake.errors import BadFile, StoreError
from tickstate.lake.listing import Listing, Segment, canonical_symbol
from tickstate.lake.names import PART, Lane, hour_time, is_daily, partition_columns, time_name
from tickstate.lake.segment import inspect_segment, read_batches
from tickstate.lake.store import Place, place, reading, walk
from tickstate.lake.stream import in_key_order
from tickstate.lake.write import is_output


@dataclass(frozen=True)
class Finding:
    """One breach of the contract: which file, which rule, what was got and what was expected."""

    path: str
    rule: str
    detail: str


@dataclass(frozen=True)
class Coverage:
    """What a lane's day holds, from its commit records."""

    channel: str
    lane: str
    day: str
    partitions: int
    rows: int
    gaps: int
    seconds_covered: int


def validate_bronze(listing: Listing) -> Iterator[Finding]:
    """Every check that reading a bronze file makes, on every file of a channel."""
    for bad in listing.misplaced:
        yield Finding(bad.relative, bad.reason, bad.detail)
    for segment in _segments(listing):
        try:
            inspect_segment(segment)
            for _ in read_batches(segment):
                pass
        except BadFile as bad:
            yield Finding(bad.relative, bad.reason, bad.detail)


def validate_output(root: Place, listing: Listing, source: Listing | None) -> Iterator[Finding]:
    """Every partition of a channel of silver or gold: file, rows, record; and whether it still has a ``source``."""
    channel = listing.channel
    for bad in listing.misplaced:
        yield Finding(bad.relative, bad.reason, bad.detail)
    for segment in _segments(listing):
        lane = Lane(segment.exchange, segment.symbol)
        if not segment.relative.endswith("/" + PART):
            yield Finding(segment.where, "unknown_file", f"expected {PART} alone")
            continue
        record = read_commit(commit_path(root, channel, lane, segment.hour))
        if record is None:
            yield Finding(segment.where, "no_record", "no commit record says what it was made from")
        yield from _check_file(segment, record)
        if source is not None and not _has_source(source, lane, segment, record):
            tier = "silver" if is_daily(channel) else "bronze"
            yield Finding(segment.where, f"no_{tier}", f"its {tier} is gone (--prune removes it)")
    for relative in sorted(r for r, *_ in walk(root / "_commits" / channel, ".json")):
        folder = f"{channel}/{relative.removesuffix('.json')}"
        if not (root / folder / PART).exists():
            yield Finding(folder, "no_output", "a commit record without its partition")


def coverage(root: Place, listing: Listing) -> list[Coverage]:
    """Rows, gaps and covered time of each lane and day."""
    found: dict[tuple[str, str], list[Commit]] = {}
    for lane, hours in sorted(listing.lanes.items()):
        for hour, record in read_commits(root, listing.channel, lane, sorted(hours)).items():
            if record is not None:
                found.setdefault((str(lane), f"{hour_time(hour):%Y-%m-%d}"), []).append(record)
    return [
        Coverage(
            listing.channel, lane, day, len(records),
            *(sum(r.counters.get(name, 0) for r in records) for name in ("rows", "gaps", "seconds_covered")),
        )
        for (lane, day), records in found.items()
    ]  # fmt: skip


def prune(root: Place, listing: Listing, source: Listing) -> list[str]:
    """Remove partitions whose source is gone, record first; returns their paths. Files of others stay."""
    gone = []
    for segment in list(_segments(listing)):
        lane, path = Lane(segment.exchange, segment.symbol), place(segment.path)
        beside = commit_path(root, listing.channel, lane, segment.hour)
        record = read_commit(beside)
        if segment.relative.endswith("/" + PART) and not _has_source(source, lane, segment, record):
            if record is None and (beside.exists() or not is_output(path)):
                continue  # a record that nobody can read, or not ours
            beside.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            gone.append(segment.where)
    return gone


def _segments(listing: Listing) -> Iterator[Segment]:
    for lane in sorted(listing.lanes):
        for hour in sorted(listing.lanes[lane]):
            yield from listing.lanes[lane][hour]


def _has_source(source: Listing, lane: Lane, segment: Segment, record: Commit | None) -> bool:
    """Whether what a partition is made from is there, under the names and hours its record's settings read it from."""
    hour = segment.hour
    settings = record.settings if record is not None else {"sample": True, "normalize_quotes": True}  # nobody knows
    if is_daily(segment.channel):
        return any(hour <= h < hour + 24 for h in source.lanes.get(lane, {}))
    hours = [hour, hour - 1] if settings.get("sample") else [hour]  # a sample's last stamp lies in the next hour
    lanes = [lane]
    if settings.get("normalize_quotes"):
        lanes += [x for x in source.lanes if Lane(x.exchange, canonical_symbol(x.symbol)) == lane]
    return any(h in source.lanes.get(x, {}) for x in lanes for h in hours)


def _check_file(segment: Segment, record: Commit | None) -> Iterator[Finding]:
    def finding(rule: str, detail: str) -> Finding:
        return Finding(segment.where, rule, detail)

    if record is not None and fingerprint(place(segment.path)) != record.file:
        yield finding("bytes", "the file's bytes are not those that were committed")
    try:
        with reading(segment.path) as file:
            schema = file.schema_arrow
            content, rows, last = ContentHash(schema), 0, None
            keys = ("bar_start", "bar_id") if is_daily(segment.channel) else ("capture_ts", "row_id")
            missing = [c for c in (*partition_columns(segment.channel), *keys) if c not in schema.names]
            if missing:
                yield finding("schema", f"no column {', '.join(missing)}")
                return
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                content.update(table)
                yield from (finding(rule, detail) for rule, detail in _check_rows(segment, table, rows, last))
                rows += table.num_rows
                last = table.slice(table.num_rows - 1)
    except StoreError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield finding("unreadable", str(error).splitlines()[0][:200])
        return
    if record is None:
        return
    absent = [c for c in record.columns if c not in schema.names]
    if absent:
        yield finding("schema", f"the record has columns that the file lacks: {', '.join(absent[:5])}")
    if content.hexdigest() != record.content:
        yield finding("content", f"content hash {content.hexdigest()}, the record says {record.content}")


def _check_rows(
    segment: Segment, table: pa.Table, first_row: int, last: pa.Table | None
) -> Iterator[tuple[str, str]]:  # fmt: skip
    time = hour_time(segment.hour)
    daily, columns = is_daily(segment.channel), partition_columns(segment.channel)
    values = (segment.exchange, segment.symbol, time.year, time.month, time.day, time.hour)
    for name, expected in zip(columns, values[: len(columns)], strict=True):
        wrong = pc.fill_null(pc.not_equal(table.column(name), expected), True)
        if pc.any(wrong).as_py():
            row = pc.index(wrong, True).as_py()
            yield "partition", f"row {first_row + row}: {name} is {table.column(name)[row]}, the path says {expected}"
    key = "bar_id" if daily else "row_id"
    keys = int64_values(table, key)
    wanted = np.arange(first_row, first_row + table.num_rows)
    if not np.array_equal(keys, wanted):
        row = int(np.flatnonzero(keys != wanted)[0])
        yield "key", f"row {first_row + row}: {key} is {keys[row]}, expected {wanted[row]}"
    joined = table if last is None else pa.concat_tables((last, table))
    in_order = (np.diff(int64_values(joined, "bar_start")) >= 0).all() if daily else in_key_order(joined)
    if not in_order:
        order = "bar_start" if daily else "capture_ts, timestamp, nonce"
        yield "order", f"rows from {first_row} on are not in the order of {order}"
    clock = "bar_start" if daily else "sample_ts" if "sample_ts" in table.column_names else "capture_ts"
    hours = int64_values(table, clock) // 3_600_000_000
    outside = (hours < segment.hour) | (hours >= segment.hour + (24 if daily else 1))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        name = time_name(segment.channel, segment.hour)
        yield ("day" if daily else "hour"), f"row {first_row + row}: {clock} lies outside {name}"
