"""``tickstate.scan``: a tier as a pyarrow dataset."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.dataset as ds

from tickstate.lake.errors import LakeError
from tickstate.lake.listing import list_channel
from tickstate.lake.names import hour_time, is_daily, parse_hour
from tickstate.lake.store import RemotePath, at_once, is_remote, place
from tickstate.lake.write import read_schema


def scan(
    root: str | os.PathLike[str] | RemotePath,
    channel: str = "orderbook",
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    start: str | datetime | None = None,
    end: str | datetime | None = None,
) -> ds.Dataset:
    """Open a channel of a tier (``lake/silver``, ``lake/bronze``), lane and time range chosen; nothing is read yet.

    ``root`` may be ``"s3://BUCKET/PREFIX"``. Of ``lake/gold`` a channel is named with its kind, ``"trades_bars/60s"``;
    times choose bars by their start.

    ``start`` (inclusive) and ``end`` (exclusive) are datetimes or hours like ``"2024-08-08T23"``, UTC. Files come in
    the order of lane and time, rows in each by ``row_id``; use ``.to_table()``, ``.scanner()``, ``.head()``, or hand
    it to polars or DuckDB. Raises ``LakeError`` where there is nothing.

    (pandas needs ``partitioning=None`` to read these files itself, since the partition columns are in the data too.)
    """
    tier = place(root)
    listing = list_channel(tier, channel)
    first, last = _hour(start), _hour(end)
    clock, length = ("bar_start", 24) if is_daily(channel) else ("capture_ts", 1)
    files = [
        s.path
        for lane in sorted(listing.lanes)
        if exchange in (None, lane.exchange) and symbol in (None, lane.symbol)
        for hour in sorted(listing.lanes[lane])
        if (first is None or hour + length > first) and (last is None or hour <= last)
        for s in listing.lanes[lane][hour]
    ]
    if not files:
        raise LakeError(
            "no partition fits",
            where=f"{tier / channel}",
            fix="check the place, channel, exchange, symbol and times",
        )
    # a feature may have been added to some hours only: the schema is that of all files
    schemas = at_once(lambda f: read_schema(place(f)).remove_metadata(), files, is_remote(tier))
    schema = pa.unify_schemas(list(dict.fromkeys(schemas)))
    if isinstance(tier, RemotePath):
        dataset = ds.dataset([place(f).key for f in files], schema, format="parquet", filesystem=tier.filesystem)
    else:
        dataset = ds.dataset(files, schema=schema, format="parquet")
    condition = None
    for bound, keep in ((start, "from"), (end, "before")):
        if bound is not None:
            time = _time(bound)
            one = ds.field(clock) >= time if keep == "from" else ds.field(clock) < time
            condition = one if condition is None else condition & one
    return dataset if condition is None else dataset.filter(condition)


def _time(bound: str | datetime) -> datetime:
    if isinstance(bound, str):
        return hour_time(parse_hour(bound))
    return bound.astimezone(UTC) if bound.tzinfo else bound.replace(tzinfo=UTC)


def _hour(bound: str | datetime | None) -> int | None:
    return None if bound is None else int(_time(bound).timestamp()) // 3600
