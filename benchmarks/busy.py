"""A busy hour: one lane's order books and trades at any rate, seeded, shaped like a recorded feed.

Measured against a recorded feed of 20 levels: a price that is a level stays one for some dozens of snapshots and its
size for a few, so that neighbouring snapshots share most levels and Parquet compresses them as it does real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import PCG64, Generator

EXCHANGE, SYMBOL = "busy", "BTC-USDT"
HOUR = 3_600_000_000  # us
FIRST_HOUR = 478_752  # 2024-08-13T00
LEVELS = 20
ROWS = 200_000
"""Of the hour that benchmarks run on: 56 snapshots a second."""
SEGMENT_ROWS = 10_000
TICK = 0.1
LEVEL = pa.struct([("price", pa.float64()), ("size", pa.float64())])


def write_busy_hour(root: Path, rows: int, *, levels: int = LEVELS, hour: int = FIRST_HOUR, seed: int = 1) -> Path:
    """Write one hour of ``rows`` snapshots and a quarter as many trades below ``root``, and return ``root``."""
    rng = Generator(PCG64(seed))
    capture = hour * HOUR + np.sort(rng.integers(0, HOUR, rows))
    moves = np.where(rng.random(rows) < 0.03, rng.choice((-2, -1, 1, 2), rows), 0)
    bid = 600_000 + np.cumsum(moves)
    ask = bid + 1 + (rng.random(rows) < 0.05)
    for channel, tables in (
        ("orderbook", _books(capture, bid, ask, levels, rng)),
        ("trades", _trades(capture, bid, ask, rng)),
    ):
        time = datetime.fromtimestamp(hour * 3600, UTC)
        folder = root / channel / f"exchange={EXCHANGE}" / f"symbol={SYMBOL}"
        folder = folder / f"year={time.year}" / f"month={time.month}" / f"day={time.day}" / f"hour={time.hour}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, columns in enumerate(tables):
            ts = columns["capture_ts"]
            partition = {"exchange": pa.repeat(EXCHANGE, len(ts)), "symbol": pa.repeat(SYMBOL, len(ts))}
            for name in ("year", "month", "day", "hour"):
                partition[name] = pa.repeat(pa.scalar(getattr(time, name), pa.int32()), len(ts))
            clocks = {
                "collected_at": ts // 1000 + 4, "capture_ts": pa.array(ts, pa.timestamp("us", tz="UTC")),
                "timestamp": ts // 1000 - 7,
            }  # fmt: skip
            table = pa.table({**columns, **clocks, **partition})
            pq.write_table(table, folder / f"segment-{number:04d}.parquet", compression="zstd")
    return root


def _books(
    capture: np.ndarray, bid: np.ndarray, ask: np.ndarray, levels: int, rng: Generator
) -> Iterator[dict[str, object]]:
    """Snapshots, a segment at a time, since many would not fit in memory."""
    nonce = 40_000_000_000 + np.cumsum(rng.integers(20, 900, len(capture)))
    sizes = np.maximum(1, np.rint(60 * rng.lognormal(0.0, 1.4, 1 << 16)))
    for first in range(0, len(capture), SEGMENT_ROWS):
        part = slice(first, first + SEGMENT_ROWS)
        number = np.arange(first, first + len(capture[part]))
        bids, asks = _side(number, bid[part], -1, levels, sizes), _side(number, ask[part], 1, levels, sizes)
        yield {"capture_ts": capture[part], "nonce": nonce[part], "bids": bids, "asks": asks}


def _side(number: np.ndarray, touch: np.ndarray, direction: int, levels: int, sizes: np.ndarray) -> pa.ListArray:
    """The touch and the next prices outward that are levels in this snapshot."""
    outward = np.arange(3 * levels, dtype=np.int16)
    rung = touch[:, None] + direction * outward.astype(np.int64)
    present = (_hash(rung, number[:, None] + 7 * rung >> 5, direction) & 0xFF) < 150
    present[:, 0] = True
    chosen = np.sort(np.where(present, outward, outward + 3 * levels), axis=1)[:, :levels] % (3 * levels)
    chosen = np.sort(chosen, axis=1).astype(np.int64)  # where too few prices are levels, the nearest others are too
    rung = np.take_along_axis(rung, chosen, axis=1)
    wear = np.where(chosen == 0, 2, 6)
    size = sizes[_hash(rung, number[:, None] + 13 * rung >> wear, direction + 4) & 0xFFFF]
    values = pa.StructArray.from_arrays(
        [pa.array(np.round(rung * TICK, 1).ravel()), pa.array(size.ravel())], fields=list(LEVEL)
    )
    return pa.ListArray.from_arrays(pa.array(np.arange(len(touch) + 1, dtype=np.int32) * levels), values)


def _hash(rung: np.ndarray, age: np.ndarray, salt: int) -> np.ndarray:
    code = (rung * 0x9E3779B1 + age * 0x85EBCA77 + salt * 0xC2B2AE3D) & 0xFFFFFFFF
    code ^= code >> 15
    return (code * 0x2C1B3C6D & 0xFFFFFFFF) >> 12


def _trades(capture: np.ndarray, bid: np.ndarray, ask: np.ndarray, rng: Generator) -> Iterator[dict[str, object]]:
    """Trades at the touch, in runs of one side."""
    row = np.sort(rng.integers(0, len(capture), len(capture) // 4))
    ids = 3_000_000_000 + np.cumsum(rng.integers(1, 3, len(row)))
    buy = np.cumsum(rng.random(len(row)) < 0.3) % 2 == 0
    price = np.round(np.where(buy, ask[row], bid[row]) * TICK, 1)
    amount = np.maximum(1, np.rint(6 * rng.lognormal(0.0, 1.4, len(row))))
    for first in range(0, len(row), SEGMENT_ROWS):
        part = slice(first, first + SEGMENT_ROWS)
        yield {
            "capture_ts": capture[row[part]], "trade_id": pa.array(ids[part]).cast(pa.string()),
            "side": pa.array(np.where(buy[part], "buy", "sell").astype(object), pa.string()),
            "price": price[part], "amount": amount[part], "cost": price[part] * amount[part],
        }  # fmt: skip
