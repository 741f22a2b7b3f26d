"""The demo lake: a small synthetic bronze lake, to run everything on before there is any data.

Four lanes over a UTC midnight with the shape of a recorded feed and with its faults: flagged books,
repeated rows, an hour without trades, a hole, paths padded two ways. The same seed gives the same
bytes (under the same numpy and pyarrow), so figures in the documentation can be checked.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy import ndarray
from numpy.random import PCG64, Generator

from tickstate.lake.store import Place, RemotePath, at_once

MS, SECOND = 1_000, 1_000_000  # microseconds, the unit of every time here
HOUR, SEGMENT = 3600 * SECOND, 300 * SECOND
STEP = 500 * MS  # mean time between snapshots, and the grid of the price two exchanges share
START = int(np.datetime64("2024-03-01T22", "us").astype(np.int64))
HOURS = ((2024, 3, 1, 22), (2024, 3, 1, 23), (2024, 3, 2, 0), (2024, 3, 2, 1))
END = START + len(HOURS) * HOUR
GAP = (START + 2 * HOUR + 17 * 60 * SECOND, START + 2 * HOUR + 27 * 60 * SECOND)
LEVELS = 20
RUNGS = 1 << 14  # prices that exist; the walk stays far from both ends
BID, ASK = 0, 1
FEW = 3  # rows of each fault, a lane
FAULTS = (
    *("no_levels", "null_lists", "no_bids", "null_asks", "zero_asks", "nan_price", "null_price"),
    *("negative_size", "infinite_size", "unsorted_bids", "unsorted_asks", "crossed", "locked"),
)
_HEAD = "collected_at capture_ts exchange symbol year month day hour "
COLUMNS = {
    "orderbook": (_HEAD + "timestamp nonce bids asks").split(),
    "trades": (_HEAD + "trade_id timestamp side price amount cost").split(),
    "ticker": (_HEAD + "bid ask bid_volume ask_volume timestamp").split(),
}
Columns = dict[str, ndarray]


@dataclass(frozen=True)
class DemoSummary:
    """What `make_demo` wrote; `rows` is by channel."""

    rows: Mapping[str, int]
    segments: int
    lanes: int
    bytes: int


@dataclass(frozen=True)
class _Lane:
    """One exchange and symbol: its grid of prices and sizes, and the faults that it alone has."""

    exchange: str
    symbol: str
    mid: float
    tick: float
    lot_digits: int
    lots: int  # median size of a level, in lots
    latency_ms: float
    gap: tuple[int, int] = (END, END)  # no rows in any channel
    dead_hour: int | None = None  # index of the hour without trades
    padded_hour: int | None = None  # index of the hour whose path is zero-padded
    nonce: bool = True


LANES = (
    _Lane("alpha", "BTC-USDT", 62_000, 0.5, 5, 30_000, 18, padded_hour=3),
    _Lane("alpha", "ETH-USDT", 3_400, 0.05, 4, 40_000, 18, gap=GAP),
    _Lane("beta", "BTC-USDT", 62_000, 1.0, 4, 6_000, 7, dead_hour=1),
    _Lane("beta", "ETH-USDT", 3_400, 0.1, 3, 9_000, 7, nonce=False),
)


@dataclass
class _Market:
    """A lane before its faults: snapshots, the touch as rungs of `ladder`, the row each order follows."""

    ladder: ndarray
    ts: ndarray
    bid: ndarray
    ask: ndarray
    order_row: ndarray
    order_buys: ndarray


@dataclass
class _Book:
    """Both sides of a lane's books, in the form that is written."""

    price: ndarray  # (2, n, LEVELS); an infinite price is written as null
    size: ndarray  # (2, n, LEVELS)
    count: ndarray  # (2, n), levels written: LEVELS, 0, or -1 for a null list


def make_demo(root: Path, *, seed: int = 7) -> DemoSummary:
    """Write the demo lake under `root`. A folder that holds a lake already is refused, never mixed into."""
    for channel in COLUMNS:
        if (Path(root) / channel).exists():
            raise FileExistsError(f"{Path(root) / channel} exists: the demo lake needs a folder without one")
    rows, sizes = dict.fromkeys(COLUMNS, 0), []
    for number, lane in enumerate(LANES):
        symbol = [other.symbol for other in LANES].index(lane.symbol)
        shared = _shared_price(Generator(PCG64([seed, 0, symbol])))
        rng = Generator(PCG64([seed, 1, number]))
        for channel, columns in zip(COLUMNS, _make_lane(lane, shared, rng), strict=True):
            rows[channel] += len(columns["capture_ts"])
            sizes += _write_segments(Path(root), channel, lane, columns)
    return DemoSummary(rows=rows, segments=len(sizes), lanes=len(LANES), bytes=sum(sizes))


def _make_lane(lane: _Lane, shared: ndarray, rng: Generator) -> tuple[Columns, Columns, Columns]:
    """The three channels. The faulty books are chosen first: no trade or quote may come from one."""
    market = _simulate(lane, shared, rng)
    n = len(market.ts)
    *faulty, twice, zero, same = 1 + rng.choice(n - 1, (len(FAULTS) + 3, FEW), replace=False)
    market.ts[same] = market.ts[same - 1]
    sound = np.ones(n, bool)
    sound[np.concatenate(faulty)] = False
    book = _build_book(lane, market, rng)
    quotes = {"bid": book.price[BID, :, 0], "ask": book.price[ASK, :, 0]}
    quotes |= {"bid_volume": book.size[BID, :, 0], "ask_volume": book.size[ASK, :, 0]}
    trades = _make_trades(lane, market, sound, quotes, rng)
    ticker = _make_ticker(lane, market, sound, quotes, rng)
    _spoil(book, dict(zip(FAULTS, faulty, strict=True)), lane.tick)
    book.size[:, zero, 1 + zero % (LEVELS - 1)] = 0.0
    return _make_book(lane, market.ts, book, twice, rng), trades, ticker


def _ar1(shocks: ndarray, tau: float) -> ndarray:
    """x_i = (1 - 1/tau) x_{i-1} + e_i without a loop: the shocks are scaled up, summed, scaled back."""
    scale = (1.0 - 1.0 / tau) ** -np.arange(len(shocks), dtype=np.float64)
    return np.cumsum(shocks * scale) / scale


def _recorded(lane: _Lane, ts: ndarray) -> ndarray:
    """Which times the lane has rows for."""
    return (ts < END) & ((ts < lane.gap[0]) | (ts >= lane.gap[1]))


def _shared_price(rng: Generator) -> ndarray:
    """The price of a symbol, in bps around its mean on a grid of STEP, which its exchanges follow."""
    n = (END - START) // STEP + 1
    vigour = np.exp(0.6 * _ar1(rng.standard_normal(n), 600) / np.sqrt(300))
    return _ar1(np.where(rng.random(n) < 0.4, 0.45 * vigour * rng.standard_normal(n), 0.0), 6000)


def _simulate(lane: _Lane, shared: ndarray, rng: Generator) -> _Market:
    """Times, touch and orders; these come in bursts and runs of one sign, and push the price a little."""
    ts = START + np.cumsum(150 * MS + rng.exponential(STEP - 150 * MS, 31_000).astype(np.int64))
    ts = ts[ts < END]
    n = len(ts)
    activity = np.exp(0.8 * _ar1(rng.standard_normal(n), 120) / np.sqrt(60))
    order_row = np.repeat(np.arange(n), np.minimum(rng.poisson(0.35 * activity), 12))
    buys = np.cumsum(rng.random(len(order_row)) < 0.25) % 2 == 0
    push = np.bincount(order_row, weights=np.where(buys, 0.12, -0.12), minlength=n)
    local = np.where(rng.random(n) < 0.3, 0.12 * rng.standard_normal(n), 0.0) + np.append(0.0, push[:-1])
    bps = shared[(ts - START) // STEP] + _ar1(local, 150)
    rungs = np.cumsum(np.minimum(rng.geometric(0.8, RUNGS), 5))
    ticks = rungs - rungs[RUNGS // 2] + round(lane.mid / lane.tick)
    held = np.maximum.accumulate(np.where(rng.random(n) < 0.25, np.arange(n), 0))
    spread = 1 + rng.choice(4, n, p=(0.72, 0.2, 0.06, 0.02))[held]
    fair = np.searchsorted(ticks, lane.mid * (1.0 + 1e-4 * bps) / lane.tick)
    bid = np.clip(fair - (spread + 1) // 2, LEVELS, RUNGS - LEVELS - 8)
    stay = _recorded(lane, ts)
    row, buys = (np.cumsum(stay) - 1)[order_row[stay[order_row]]], buys[stay[order_row]]
    return _Market(np.round(ticks * lane.tick, 2), ts[stay], bid[stay], (bid + spread)[stay], row, buys)


def _build_book(lane: _Lane, market: _Market, rng: Generator) -> _Book:
    """Levels whose sizes belong to prices: a price keeps its size for 2^wear snapshots, fewer near the touch.

    A hash of (side, price, age) points into a pool of sizes, so nothing is carried from row to row.
    """
    pool = np.maximum(1, np.rint(lane.lots * rng.lognormal(0.0, 1.1, 1 << 16))).astype(np.int64)
    wear, phase = rng.integers(2, 7, RUNGS), rng.integers(0, 64, RUNGS)
    n, level = len(market.ts), np.arange(LEVELS)
    rung = np.stack([market.bid[:, None] - level, market.ask[:, None] + level])
    age = (np.arange(n)[:, None] + phase[rung]) >> np.minimum(wear[rung], 1 + level)
    side = np.arange(2)[:, None, None]
    code = (rung * 0x9E3779B1 + age * 0x85EBCA77 + side * 0xC2B2AE3D) & 0xFFFFFFFF
    code ^= code >> 15
    lots = pool[(code * 0x2C1B3C6D & 0xFFFFFFFF) >> 16]
    return _Book(market.ladder[rung], lots / 10**lane.lot_digits, np.full((2, n), LEVELS))


def _spoil(book: _Book, rows: dict[str, ndarray], tick: float) -> None:
    """Turn the chosen snapshots into examples of every way in which a book can be unusable."""
    price, size, count = book.price, book.size, book.count
    count[:, rows["no_levels"]] = 0
    count[:, rows["null_lists"]] = -1
    count[BID, rows["no_bids"]] = 0
    count[ASK, rows["null_asks"]] = -1
    size[ASK, rows["zero_asks"]] = 0.0
    price[BID, rows["nan_price"], 3] = np.nan
    price[ASK, rows["null_price"], 5] = np.inf
    size[BID, rows["negative_size"], 2] *= -1.0
    size[ASK, rows["infinite_size"], LEVELS - 1] = np.inf
    for side, name in ((BID, "unsorted_bids"), (ASK, "unsorted_asks")):
        price[side, rows[name], 6:8] = price[side, rows[name], 7:5:-1]
    for name, through in (("crossed", 2 * tick), ("locked", 0.0)):
        spread = price[ASK, rows[name], :1] - price[BID, rows[name], :1]
        price[ASK, rows[name]] = np.round(price[ASK, rows[name]] - spread - through, 2)


def _stamp(lane: _Lane, ts: ndarray, rng: Generator) -> Columns:
    """The three clocks: sent by the exchange, received, and handed to the recorder."""
    sent = ts - (MS * (2.0 + lane.latency_ms * rng.lognormal(0.0, 0.4, len(ts)))).astype(np.int64)
    kept = ts + rng.integers(1 * MS, 30 * MS, len(ts))
    clocks = {"collected_at": kept // MS, "capture_ts": ts, "timestamp": sent // MS}
    return {name: np.maximum.accumulate(clock) for name, clock in clocks.items()}


def _repeat(columns: Columns, rows: ndarray, later: ndarray | int = 0) -> Columns:
    """The rows once more, `later` microseconds after the first time, in the order of time."""
    columns = {name: np.concatenate([column, column[rows]]) for name, column in columns.items()}
    columns["capture_ts"][-len(rows) :] += later
    columns["collected_at"][-len(rows) :] += later // MS
    order = np.argsort(columns["capture_ts"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _make_book(lane: _Lane, ts: ndarray, book: _Book, twice: ndarray, rng: Generator) -> Columns:
    """Order-book rows; those of `twice` are written a second time, equal in every column."""
    columns = _stamp(lane, ts, rng) | {"row": np.arange(len(ts))}
    columns["nonce"] = 40_000_000_000 + np.cumsum(rng.integers(20, 900, len(ts)))
    columns = _repeat(columns, twice)
    for side, name in ((BID, "bids"), (ASK, "asks")):
        count, some = book.count[side], book.count[side] > 0
        ends = np.append(0, np.cumsum(np.maximum(count, 0)))
        price, size = book.price[side, some].ravel(), book.size[side, some].ravel()
        prices = pa.array(price, mask=np.isposinf(price))
        levels = pa.StructArray.from_arrays([prices, pa.array(size)], names=["price", "size"])
        offsets = pa.array(ends, pa.int32(), mask=np.append(count < 0, False))  # a null makes a null list
        columns[name] = pa.ListArray.from_arrays(offsets, levels).take(pa.array(columns["row"]))
    return columns | ({} if lane.nonce else {"nonce": pa.nulls(len(columns["row"]), pa.int64())})


def _make_trades(lane: _Lane, market: _Market, sound: ndarray, quotes: Columns, rng: Generator) -> Columns:
    """One to four fills an order, at the touch of the last sound snapshot before it."""
    room = np.clip(np.diff(market.ts, append=END), 10, STEP) - 10
    ts = market.ts[market.order_row] + 1 + rng.integers(0, room[market.order_row], endpoint=True)
    order = np.argsort(ts, kind="stable")
    columns = _stamp(lane, ts[order], rng) | {"buys": market.order_buys[order]}
    fills = 1 + rng.choice(4, len(ts), p=(0.6, 0.24, 0.1, 0.06))
    columns = {name: np.repeat(column, fills) for name, column in columns.items()}
    n = len(columns["buys"])
    touch = np.maximum.accumulate(np.where(sound, np.arange(len(sound)), 0))
    row = touch[np.searchsorted(market.ts, columns["capture_ts"]) - 1]
    columns["price"] = np.where(columns["buys"], quotes["ask"][row], quotes["bid"][row])
    columns["capture_ts"] = np.maximum.accumulate(columns["capture_ts"] + rng.integers(0, 3, n))
    columns["trade_id"] = 3_000_000_000 + np.cumsum(rng.integers(1, 3, n))
    lots = np.maximum(1, np.rint(0.1 * lane.lots * rng.lognormal(0.0, 1.4, n)))
    columns["amount"] = lots / 10**lane.lot_digits
    columns["cost"] = columns["price"] * columns["amount"]
    columns["unsided"] = np.isin(np.arange(n), rng.choice(n, 2 * FEW, replace=False))
    columns = _repeat(columns, rng.choice(n, 2 * FEW, replace=False), np.repeat([0, 1_500 * MS], FEW))
    ts = columns["capture_ts"]
    stay = _recorded(lane, ts) & ((ts - START) // HOUR != lane.dead_hour)
    columns = {name: column[stay] for name, column in columns.items()}
    side = np.where(columns["buys"], "buy", "sell").astype(object)
    columns["side"] = pa.array(side, pa.string(), mask=columns["unsided"])
    return columns | {"trade_id": pa.array(columns["trade_id"]).cast(pa.string())}


def _make_ticker(lane: _Lane, market: _Market, sound: ndarray, quotes: Columns, rng: Generator) -> Columns:
    """The touch of every other sound snapshot, a moment after it: about one a second."""
    row = np.flatnonzero(sound & (rng.random(len(sound)) < 0.5))
    ts = np.maximum.accumulate(market.ts[row] + rng.integers(20, 40 * MS, len(row)))
    row, ts = row[_recorded(lane, ts)], ts[_recorded(lane, ts)]
    same = 1 + rng.choice(len(ts) - 1, FEW, replace=False)
    ts[same] = ts[same - 1]
    columns = _stamp(lane, ts, rng) | {name: column[row] for name, column in quotes.items()}
    return _repeat(columns, rng.choice(len(ts), FEW, replace=False))


def _write_segments(root: Path, channel: str, lane: _Lane, columns: Columns) -> list[int]:
    """One file for every five minutes that have a row; the size of each."""
    ts, hour = columns["capture_ts"], (columns["capture_ts"] - START) // HOUR
    known = columns | {"capture_ts": pa.array(ts).cast(pa.timestamp("us", tz="UTC"))}
    known |= {"exchange": pa.repeat(lane.exchange, len(ts)), "symbol": pa.repeat(lane.symbol, len(ts))}
    known |= zip(("year", "month", "day", "hour"), np.array(HOURS, np.int32)[hour].T, strict=True)
    table = pa.table({name: known[name] for name in COLUMNS[channel]})
    sizes: list[int] = []
    for low, high in pairwise([0, *(1 + np.flatnonzero(np.diff(ts // SEGMENT))), len(ts)]):
        pad = "02d" if hour[low] == lane.padded_hour else "d"
        year, month, day, of_day = (format(part, pad) for part in HOURS[hour[low]])
        folder = root / channel / f"exchange={lane.exchange}" / f"symbol={lane.symbol}"
        folder = folder / f"year={year}" / f"month={month}" / f"day={day}" / f"hour={of_day}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"segment-{ts[low] % HOUR // SEGMENT * 5:02d}00.parquet"
        pq.write_table(table.slice(low, high - low), path, compression="zstd")
        sizes.append(path.stat().st_size)
    return sizes


def ensure_demo(root: Place) -> bool:
    """Make the demo lake unless it is there; whole or not at all. Returns whether it was made now."""
    if isinstance(root, RemotePath):
        return _upload_demo(root)
    if root.exists():
        return False
    unfinished = root.with_name(f".{root.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make_demo(unfinished)
    unfinished.rename(root)
    return True


def _upload_demo(root: RemotePath) -> bool:
    """Bring the demo lake to a bucket, those of its files that are not there in their size."""
    with tempfile.TemporaryDirectory(prefix="tickstate-demo-") as folder:
        make_demo(Path(folder))
        there = {relative: stat.st_size for relative, stat in root.walk()}
        files = sorted(Path(folder).rglob("*.parquet"))
        missing = [p for p in files if there.get(p.relative_to(folder).as_posix()) != p.stat().st_size]
        at_once(lambda p: (root / p.relative_to(folder).as_posix()).upload(p), missing, remote=True)
    return bool(missing)
