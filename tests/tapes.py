"""Builders of trades, quotes and small lakes of several channels; and the three ways of computing one.

Rows are dicts as in tests/lakes.py. A lake is `{(channel, symbol): rows}` of one exchange, written hour by hour.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import lakes
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from lakes import HOUR, MIDNIGHT, SECOND, snapshot

import tickstate

EXCHANGE, SYMBOL = "demo", "A-B"
GAPS = (297, 299, 300, 301, 600, 900, 901)
"""Seconds around max_staleness, trades_max_gap, the memory of trade ids, and the windows."""


def trade(t, amount=1.0, side="buy", trade_id=None, price=100.0, **others):
    """A trade at `t` us."""
    row = {"capture_ts": t, "timestamp": t // 1000, "trade_id": trade_id, "side": side, "price": price}
    return row | {"amount": amount, "collected_at": None, "cost": None} | others


def quote(t, bid=99.0, ask=101.0, bid_volume=1.0, ask_volume=1.0, **others):
    """A ticker row at `t` us."""
    row = {"capture_ts": t, "timestamp": t // 1000, "collected_at": None, "bid": bid, "ask": ask}
    return row | {"bid_volume": bid_volume, "ask_volume": ask_volume} | others


def touch(t, mid=100.0, bid=1.0, ask=1.0, **others):
    """A valid snapshot of one level a side, spread 1, at `t` us."""
    return snapshot(t, [(mid - 0.5, bid)], [(mid + 0.5, ask)], **others)


# ---- at random


def steps(*near):
    """Microseconds between two rows: none, about a second, and those `near` (seconds) a limit, just under or over."""
    limits = [s * SECOND + e for s in near for e in (-1, 0, 1)]
    few = st.sampled_from((0, 0, 1, SECOND // 2, SECOND, 5 * SECOND, 60 * SECOND))
    return st.one_of(few, st.integers(0, 3 * SECOND), st.integers(0, 40 * SECOND), st.sampled_from(limits))


BAD = (0.0, -1.0, None, float("nan"), float("inf"), float("-inf"))
AMOUNTS = st.one_of(st.sampled_from((1.0, 2.0, 0.1, 0.3, 1e-3, 12.5)), st.floats(0.01, 40.0))
PRICES = st.sampled_from((100.0, 100.5, 101.0, 99.99))


@st.composite
def trades(draw, min_rows=0, max_rows=20, near=GAPS, ids=True, bad=True, sides=("buy", "sell", "buy", "sell", None)):
    """Trades in order: without a side, bad ones, ids that come again after any time, or null."""
    t, rows = MIDNIGHT - draw(st.sampled_from((0, 1, 400 * SECOND, 1800 * SECOND))), []
    for i in range(draw(st.integers(min_rows, max_rows))):
        t += draw(steps(*near)) if i else 0
        row = trade(t, draw(AMOUNTS), draw(st.sampled_from(sides)), str(i), draw(PRICES))
        if ids:
            row["trade_id"] = draw(st.sampled_from((str(i), str(i), None, "x", "y", "")))
        if bad and draw(st.integers(0, 7)) == 0:
            row[draw(st.sampled_from(("price", "amount")))] = draw(st.sampled_from(BAD))
        rows.append(row)
    return rows


@st.composite
def quotes(draw, min_rows=1, max_rows=20, near=(59, 60, 299, 300, 900)):
    """Ticker rows in order: sides missing, locked or crossed, volumes missing, bad or 0 / 0, rows that come again."""
    t, rows = MIDNIGHT - draw(st.sampled_from((0, 1, 400 * SECOND))), []
    volumes = st.one_of(AMOUNTS, st.just(0.0), st.sampled_from(BAD))
    for i in range(draw(st.integers(min_rows, max_rows))):
        t += draw(steps(*near)) if i else 0
        bid = 100 + 0.25 * draw(st.integers(-8, 8))
        ask = bid + 0.25 * draw(st.sampled_from((1, 1, 2, 3, 0, -1)))
        row = quote(t, bid, ask, draw(volumes), draw(volumes))
        if draw(st.integers(0, 5)) == 0:
            row[draw(st.sampled_from(("bid", "ask")))] = draw(st.sampled_from(BAD))
        if rows and draw(st.integers(0, 9)) == 0:
            row = rows[-1] | {"capture_ts": t, "timestamp": t // 1000}
        rows.append(row)
    return rows


# ---- lakes of several hours


def write(lake, rows_of, exchange=EXCHANGE, name="a.parquet"):
    """Write `{(channel, symbol): rows}` under `lake`/bronze, a file an hour; returns the lake."""
    for (channel, symbol), rows in rows_of.items():
        hours = {}
        for row in rows:
            hours.setdefault(row["capture_ts"] // HOUR, []).append(row)
        for found in hours.values():
            lakes.write_segment(Path(lake) / "bronze", channel, exchange, symbol, found, name)
    return Path(lake)


def write_empty(lake, channel, hour, symbol=SYMBOL, exchange=EXCHANGE, name="a.parquet"):
    """A segment of 0 rows for an hour (number since the epoch)."""
    parts = {"exchange": exchange, "symbol": symbol} | lakes.hour_parts(hour * HOUR)
    path = Path(lake, "bronze", channel, *(f"{k}={v}" for k, v in parts.items()), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(lakes.bronze_table(channel, [], exchange, symbol), path)
    return path


def run(lake, silver=None, **options):
    """`tickstate.run` in this process; everything must go well."""
    summary = tickstate.run(
        bronze=Path(lake) / "bronze", silver=silver or Path(lake) / "silver", **{"runner": "single", **options}
    )
    assert summary.exit_code == 0, [str(o) + ": " + o.error for o in summary.failed] + summary.quarantined
    return summary


def hour_text(hour):
    """An hour since the epoch as --start takes it."""
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H")


def parts(silver):
    """{path below: bytes} of every partition."""
    return {
        str(p.relative_to(silver)): p.read_bytes()
        for p in sorted(Path(silver).rglob("part-0.parquet"))
        if "_commits" not in p.parts
    }


def run_every_way(lake, **options):
    """Single, batch and every hour alone from nothing: the same bytes. Returns the silver of the single run."""
    whole = lake / "whole"
    planned = run(lake, whole, **options).plan
    want = parts(whole)
    batch = lake / "batch"
    with ThreadPoolExecutor(2) as pool:  # lanes at the same time; threads, since processes take seconds to start
        run(lake, batch, **{**options, "runner": "batch", "workers": 2, "executor": pool})
    assert parts(batch) == want
    for hour in sorted({p.hour for p in planned.partitions}):
        alone = lake / f"alone-{hour}"
        run(lake, alone, start=hour_text(hour), end=hour_text(hour + 1), **options)
        found = parts(alone)
        assert found
        assert found == {name: want[name] for name in found}, hour_text(hour)
    return whole


def folder(t):
    """The folders of the partition that a time lies in."""
    return "/".join(f"{k}={v}" for k, v in lakes.hour_parts(t).items())


def read(silver, channel="orderbook", symbol=SYMBOL, t=None, exchange=EXCHANGE):
    """The rows (dicts, times in us) of a lane's partitions in order; `t`: of one partition only."""
    root = Path(silver, channel, f"exchange={exchange}", f"symbol={symbol}")
    if t is not None:
        return to_rows(pq.read_table(root / folder(t) / "part-0.parquet", partitioning=None))
    paths = sorted(root.rglob("part-0.parquet"), key=lambda p: [int(x.split("=")[1]) for x in p.parts[-5:-1]])
    return [row for path in paths for row in to_rows(pq.read_table(path, partitioning=None))]


def to_rows(table):
    """A silver table as dicts, times in us."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pa.int64()))
    return table.to_pylist()


def record(silver, t, channel="orderbook", symbol=SYMBOL, exchange=EXCHANGE):
    """The commit record of the partition that a time lies in."""
    path = Path(silver, "_commits", channel, f"exchange={exchange}", f"symbol={symbol}", f"{folder(t)}.json")
    return json.loads(path.read_text())


SHARED = Path(__file__).parents[1].parent / "shared"


def has_bronze():
    """Whether the real data stands beside the checkout."""
    return (SHARED / "bronze").is_dir()


def real(channel, exchange, symbol):
    """A lane of ../shared/bronze as one table."""
    root = SHARED / "bronze" / channel / f"exchange={exchange}" / f"symbol={symbol}"
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in sorted(root.rglob("*.parquet"))])
