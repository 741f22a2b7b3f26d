"""Builders for tests: bronze as dicts, as Arrow tables, as a lake on disk, and at random; and tolerances.

A book row is a dict with `capture_ts` (int us), `timestamp`, `nonce`, `collected_at` and `bids`, `asks`: lists of
(price, size), best first, where a list, a level, a price or a size may be None.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path

import naive
import naive_channels
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

import tickstate
from tickstate.features.engine import Engine
from tickstate.features.graph import build_graph
from tickstate.lake.book import book_rows

SECOND = 1_000_000
HOUR = 3600 * SECOND
MIDNIGHT = 1_723_161_600 * SECOND
"""2024-08-09T00:00Z."""

TIME = pa.timestamp("us", tz="UTC")
LEVELS = pa.list_(pa.struct([("price", pa.float64()), ("size", pa.float64())]))
_DOUBLES = dict.fromkeys(("bid", "ask", "bid_volume", "ask_volume"), pa.float64())
CHANNELS = {
    "orderbook": {
        "collected_at": pa.int64(), "capture_ts": TIME, "timestamp": pa.int64(), "nonce": pa.int64(),
        "bids": LEVELS, "asks": LEVELS,
    },
    "trades": {
        "collected_at": pa.int64(), "capture_ts": TIME, "timestamp": pa.int64(), "trade_id": pa.string(),
        "side": pa.string(), "price": pa.float64(), "amount": pa.float64(), "cost": pa.float64(),
    },
    "ticker": {"collected_at": pa.int64(), "capture_ts": TIME, "timestamp": pa.int64(), **_DOUBLES},
}  # fmt: skip
"""Columns of bronze beside the six of the partition."""
TAPE_TYPES = {"capture_ts": pa.int64(), "amount": pa.float64()}
PARTITION = {"exchange": pa.string(), "symbol": pa.string()} | dict.fromkeys(
    ("year", "month", "day", "hour"), pa.int32()
)


# ---- bronze as tables and files


def snapshot(t, bids, asks, **others):
    """A book row at `t` us; exchange time, nonce and collected_at follow from it unless given."""
    row = {"capture_ts": t, "timestamp": t // 1000, "nonce": None, "collected_at": None, "bids": bids, "asks": asks}
    return row | others


def hour_parts(t):
    """year, month, day and hour of a time in us."""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=t // HOUR)
    return {"year": time.year, "month": time.month, "day": time.day, "hour": time.hour}


def _level(level):
    return dict(zip(("price", "size"), level, strict=True)) if isinstance(level, tuple | list) else level


def bronze_table(channel, rows, exchange="demo", symbol="A-B"):
    """Rows (dicts) as bronze has them: contract columns, and the six of the partition. Missing keys are null."""
    rows = [
        {k: [_level(v) for v in value] if isinstance(value, list) else value for k, value in row.items()}
        for row in rows
    ]
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in CHANNELS[channel].items()}
    parts = [{"exchange": exchange, "symbol": symbol} | hour_parts(row["capture_ts"]) for row in rows]
    columns |= {name: pa.array([part[name] for part in parts], kind) for name, kind in PARTITION.items()}
    return pa.table(columns)


def book_table(rows, exchange="demo", symbol="A-B"):
    """Order-book rows as a bronze table."""
    return bronze_table("orderbook", rows, exchange, symbol)


def to_naive(table):
    """A bronze table as the row dicts of naive.py."""
    names = [name for name in table.column_names if name not in PARTITION]
    table = table.select(names)
    times = table.column("capture_ts").cast(pa.int64())
    return table.set_column(names.index("capture_ts"), "capture_ts", times).to_pylist()


def ordered(rows):
    """Rows in the contract's order, without duplicates."""
    return naive.drop_duplicates(naive.order(to_naive(book_table(rows))))


def write_segment(root, channel, exchange, symbol, rows, name="segment-0.parquet", **options):
    """Write rows (dicts, or a table) of one hour into the hive folder of that hour; returns the file's path."""
    table = rows if isinstance(rows, pa.Table) else bronze_table(channel, rows, exchange, symbol)
    hours = set((np.asarray(table.column("capture_ts").cast(pa.int64())) // HOUR).tolist())
    if len(hours) != 1:
        raise ValueError(f"a segment holds rows of one hour, these are of {len(hours)}")
    parts = {"exchange": exchange, "symbol": symbol} | hour_parts(hours.pop() * HOUR)
    path = Path(root, channel, *(f"{key}={value}" for key, value in parts.items()), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


# ---- books at random


def random_book(rng, n, start=MIDNIGHT - 60 * SECOND, gap=0.2, tick=0.01, levels=12, flagged=0.03):
    """`n` realistic rows: irregular and repeated times, a walking touch, now and then few levels, a level of
    size 0 or a snapshot that is not valid. `rng` is a numpy Generator; `gap` is the mean seconds between rows."""
    rows, t, middle = [], start, round(100 / tick)
    for i in range(n):
        if i and rng.random() > 0.1:
            t += int(rng.exponential(gap) * SECOND)
        middle += int(rng.integers(-2, 3))
        sides = []
        for sign in (-1, 1):
            count = int(rng.integers(1, 5)) if rng.random() < 0.1 else levels
            steps = np.cumsum(rng.integers(1, 4, count))
            sizes = np.round(rng.exponential(3.0, count) + 0.001, 3)
            sizes[rng.random(count) < 0.02] = 0.0
            sizes[0] = max(sizes[0], 0.001)
            sides.append([((middle + sign * int(s)) * tick, float(x)) for s, x in zip(steps, sizes, strict=True)])
        row = snapshot(t, *sides, nonce=i, timestamp=t // 1000 - int(rng.integers(0, 40)))
        rows.append(spoil(row, FAULTS[int(rng.integers(len(FAULTS)))]) if rng.random() < flagged else row)
    return rows


def random_tape(rng, n, start=MIDNIGHT - 60 * SECOND, gap=0.5):
    """`n` trades in order, with repeated times, now and then one without a side and one that is none."""
    times = start + np.cumsum((rng.exponential(gap, n) * SECOND).astype(np.int64) * (rng.random(n) > 0.2))
    sides = rng.choice(["buy", "sell", "buy", "sell", None], n, p=[0.24, 0.24, 0.24, 0.24, 0.04])
    amounts = np.where(rng.random(n) < 0.02, 0.0, np.round(rng.exponential(2.0, n) + 0.001, 3))
    prices = 100 + 0.01 * np.cumsum(rng.integers(-2, 3, n))
    columns = zip(times.tolist(), sides.tolist(), prices.tolist(), amounts.tolist(), strict=True)
    return [
        {"capture_ts": t, "timestamp": t // 1000, "trade_id": str(i), "side": side, "price": price, "amount": amount}
        for i, (t, side, price, amount) in enumerate(columns)
    ]


def spoil(row, fault):
    """The row made not valid, in the way that `fault` says."""
    bids, asks = row["bids"], row["asks"]
    changes = {
        "empty": {"bids": [], "asks": []},
        "null_lists": {"bids": None, "asks": None},
        "one_sided": {"asks": []},
        "null_side": {"bids": None},
        "null_price": {"bids": [(None, 1.0), *bids]},
        "null_size": {"asks": [*asks, (asks[-1][0] + 1, None)] if asks else asks},
        "null_level": {"bids": [*bids, None]},
        "negative": {"bids": [*bids, (bids[-1][0] / 2, -1.0)] if bids else bids},
        "infinite": {"asks": [*asks, (np.inf, 1.0)]},
        "unsorted": {"bids": [*bids, bids[-1]]},
        "crossed": {"asks": [(bids[0][0] / 2, 1.0)]},
        "locked": {"asks": [bids[0]]},
    }
    return row | changes[fault]


FAULTS = (
    "empty", "null_lists", "one_sided", "null_side", "null_price", "null_size", "null_level", "negative", "infinite",
    "unsorted", "crossed", "locked",
)  # fmt: skip

_GAPS = st.one_of(
    st.sampled_from((0, 0, 0, 1, 1_000, SECOND, 625_000, 5 * SECOND, 15 * SECOND, 60 * SECOND)),
    st.integers(1, 3 * SECOND),
    st.sampled_from([s * SECOND for s in (297, 299, 300, 301, 600, 899, 900, 901)] + [300 * SECOND + 1]),
)
_SIZES = st.one_of(st.sampled_from((0.0, 1.0, 1.0, 2.0, 0.1, 3.3, 1e-3, 1e4)), st.floats(0.01, 50.0))


@st.composite
def books(draw, min_rows=1, max_rows=16, tick=0.01, faults=FAULTS, max_levels=12, nonces=True):
    """Small books in order: times repeated or with gaps around max_staleness and the windows, a level a side or
    many, levels of size 0, rows that are not valid, equal rows. Prices are whole multiples of `tick`."""
    steps = st.lists(st.tuples(st.integers(1, 6), _SIZES), min_size=1, max_size=max_levels)
    t, rows = MIDNIGHT - draw(st.sampled_from((0, 1, 400 * SECOND, 1800 * SECOND))), []
    for i in range(draw(st.integers(min_rows, max_rows))):
        t += draw(_GAPS) if i else 0
        if i and draw(st.integers(0, 9)) == 0:
            rows.append(rows[-1] | {"capture_ts": t})
            continue
        middle, sides = 10_000 + draw(st.integers(-3, 3)), []
        for sign in (-1, 1):
            price, side = middle, []
            for step, size in draw(steps):
                price += sign * step
                side.append((price * tick, size))
            sides.append(side)
        row = snapshot(t, *sides, nonce=draw(st.none() | st.integers(0, 3)) if nonces else i)
        fault = draw(st.sampled_from((None,) * 8 + ("some",))) if faults else None
        rows.append(spoil(row, draw(st.sampled_from(faults))) if fault else row)
    return rows


# ---- trades and quotes at random

_TAPE_GAPS = st.one_of(
    st.sampled_from([0, 0, 1, *(s * SECOND for s in (1, 5, 60, 297, 299, 300, 301))]), st.integers(0, 20 * SECOND)
)
_BAD = (0.0, -1.0, None, float("nan"), float("inf"))


@st.composite
def tapes(draw, min_rows=0, max_rows=20, distinct=True):
    """Trades in order, at about the times of `books`: some without a side, some that are none."""
    t, rows = MIDNIGHT - draw(st.sampled_from((0, 400 * SECOND, 1800 * SECOND))), []
    for i in range(draw(st.integers(min_rows, max_rows))):
        t += draw(_TAPE_GAPS)
        amount = draw(st.one_of(st.sampled_from((1.0, 2.0, 0.1, 0.3, 12.5, 1e-3)), st.floats(0.01, 40)))
        price = draw(st.sampled_from((100.0, 100.5, 101.0, 99.99)))
        bad = draw(st.integers(0, 19))
        row = {"capture_ts": t, "timestamp": t // 1000, "trade_id": str(i) if distinct else None}
        row |= {"side": draw(st.sampled_from(("buy", "sell", "buy", "sell", None))), "price": price, "amount": amount}
        rows.append(row | ({"price" if bad else "amount": draw(st.sampled_from(_BAD))} if bad < 2 else {}))
    return rows


@st.composite
def quotes(draw, min_rows=1, max_rows=20):
    """Ticker rows in order: some one-sided, crossed or without a volume."""
    t, rows = MIDNIGHT - draw(st.sampled_from((0, 400 * SECOND, 1800 * SECOND))), []
    for i in range(draw(st.integers(min_rows, max_rows))):
        t += draw(_TAPE_GAPS)
        bid = 100 + 0.25 * draw(st.integers(-8, 8))
        volumes = draw(st.tuples(*[st.one_of(st.floats(0.01, 40), st.sampled_from((0.0, *_BAD)))] * 2))
        row = {"capture_ts": t, "timestamp": t // 1000 + i, "bid": bid, "ask": bid + 0.25 * draw(st.integers(0, 4))}
        row |= {"bid_volume": volumes[0], "ask_volume": volumes[1]}
        rows.append(row | ({"ask": draw(st.sampled_from(_BAD))} if draw(st.integers(0, 9)) == 0 else {}))
    return rows


# ---- the library, column by column


@dataclass(frozen=True)
class Chunk:
    """What the engine takes: `flag` 0 where a row is valid, arrays of the valid rows."""

    flag: np.ndarray
    arrays: dict
    lead: int = 0


class Lane:
    """Ordered rows (dicts) of one lane as the engine takes them, with the trades that an order book joins."""

    def __init__(self, channel, rows, trades=()):
        self.channel, self.rows = channel, rows
        self.times = np.array([row["capture_ts"] for row in rows], np.int64)
        self.tape = _trade_arrays([trade for trade in trades if naive.trade_is_good(trade)])
        self._table = book_table(rows) if channel == "orderbook" else None

    def __len__(self):
        return len(self.rows)

    def prefix(self, n):
        found = Lane(self.channel, self.rows[:n])
        found.tape = self.tape
        return found

    def chunk(self, first, last, depth=20):
        if self._table is not None:
            return book_rows(self._table.slice(first, last - first), depth)
        rows = self.rows[first:last]
        good, arrays = {
            "trades": (naive.trade_is_good, _trade_arrays),
            "ticker": (naive_channels.quote_is_good, _quote_arrays),
        }[self.channel]
        flag = np.array([not good(row) for row in rows], np.uint8)
        return Chunk(flag, arrays([row for row in rows if good(row)]))

    def trades(self, after, until):
        """The joined trades with after < capture_ts <= until."""
        edges = np.searchsorted(self.tape["capture_ts"], (after, until), side="right")
        return {name: values[edges[0] : edges[1]] for name, values in self.tape.items()}


def _columns(rows, names):
    found = {n: np.array([np.nan if r[n] is None else r[n] for r in rows], float) for n in names if n != "capture_ts"}
    return {"capture_ts": np.array([row["capture_ts"] for row in rows], np.int64)} | found


def _trade_arrays(rows):
    arrays = _columns(rows, ("price", "amount"))
    arrays["side"] = np.array([{"buy": 1.0, "sell": -1.0}.get(row["side"], np.nan) for row in rows])
    with np.errstate(over="ignore"):
        return arrays | {"quote": arrays["price"] * arrays["amount"], "base": arrays["amount"]}


def _quote_arrays(rows):
    return _columns(rows, ("bid", "ask", "bid_volume", "ask_volume"))


@cache
def small_lanes(n=80, gap=1.0, seed=7):
    """A lane of each channel with something of everything, the same in every process."""
    rng = np.random.default_rng(seed)
    tape = random_tape(rng, 2 * n, gap=gap / 2)
    quotes = [
        {"capture_ts": t["capture_ts"], "timestamp": i, "bid": t["price"], "ask": t["price"] + 0.01 * (i % 4)}
        | {"bid_volume": t["amount"], "ask_volume": float(i % 7)}
        for i, t in enumerate(tape)
    ]
    rows = {"orderbook": ordered(random_book(rng, n, gap=gap)), "trades": tape, "ticker": quotes}
    return {channel: Lane(channel, found, tape) for channel, found in rows.items()}


def features_of(channel):
    """The registered features of a channel, by name."""
    return {name: e.feature.make() for name, e in tickstate.default_registry().of_channel(channel).items()}


VPIN = {"vpin": {"bucket_volume": 3.0, "window": 4, "min_buckets": 2}}
SMALL = VPIN | {"spread_rank": {"min_rows": 3}, "ofi_beta": {"min_cells": 2}, "kyle_lambda": {"min_cells": 2}}
"""Parameters with which small inputs show what the defaults would leave null."""


def graph_of(channel, *names, params=None, **options):
    """The graph of some features of a channel, default all of them; parameters of features it has not are left out."""
    known = features_of(channel)
    params = {name: given for name, given in (params or {}).items() if name in known}
    return build_graph(channel, names or tuple(known), params=params, **options)


def run_engine(graph, lane, cuts=(), start=0, begin=0, since=None, reload=False):
    """The columns of `graph` over the rows from `start` on, cut before the rows `cuts`.

    Rows from `begin` to `start`, and trades from the time `since` on, are pushed before and not emitted. With
    `reload` every chunk has a new engine, made from the last one's state.
    """
    engine, parts, n = Engine(graph), [], len(lane)
    edges = [begin, *sorted({c for c in (*cuts, start) if begin < c < n}), n]
    given = -(1 << 62) if since is None else since - 1
    for first, last in pairwise(edges if n > begin else [0, 0]):
        rows = lane.chunk(first, last, graph.settings.depth)
        options = {"emit": first >= start}
        if graph.joins and len(rows.arrays["capture_ts"]):
            until = int(rows.arrays["capture_ts"][-1])
            options["trades"], given = lane.trades(given, until), until
        values = engine.push(rows, **options)
        if first >= start:
            parts.append(values)
            for name, v in values.items():
                null = np.isnan(v.data)
                assert v.nulls == null.sum(), name
                assert (np.unpackbits(v.validity, bitorder="little")[: len(null)] == ~null).all(), name
        if reload:
            engine = Engine(graph, state=engine.state)
    return {c.name: np.concatenate([p[c.name].data for p in parts]) for c in graph.columns}


def with_names(graph, values):
    """The columns of `run_engine`, codes of strings as those strings."""
    texts = {c.name: c.categories for c in graph.columns if c.dtype == "string"}
    return {
        name: [None if np.isnan(x) else texts[name][int(x)] for x in found] if name in texts else found
        for name, found in values.items()
    }


def columns_of(table):
    """A silver table as doubles (null as NaN), strings as lists; without times."""
    kinds = {field.name: field.type for field in table.schema if not pa.types.is_timestamp(field.type)}
    return {n: table[n].to_pylist() if pa.types.is_string(kind) else floats(table[n]) for n, kind in kinds.items()}


def bits(array):
    """Doubles as 64-bit patterns."""
    return np.ascontiguousarray(array, np.float64).view(np.int64)


def assert_same_bits(got, want):
    """Two sets of columns, bit for bit."""
    assert got.keys() == want.keys()
    for name in got:
        np.testing.assert_array_equal(bits(got[name]), bits(want[name]), err_msg=name)


def floats(column):
    """An Arrow column of numbers as doubles, null as NaN."""
    return column.combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)


# ---- tolerances


def ln(x):
    """ln(x) but for its last bits, which are not those of a C library."""
    return pytest.approx(math.log(x), rel=1e-15)


def assert_close(name, got, want, allowed):
    """Nulls agree exactly, values to within `allowed`; arrays of doubles, null as NaN."""
    for problem, wrong in (
        ("null", np.isnan(got) & ~np.isnan(want)),
        ("not null", ~np.isnan(got) & np.isnan(want)),
        ("off", np.abs(got - want) > allowed),
    ):
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            allowed_i = np.broadcast_to(allowed, got.shape)[i]
            raise AssertionError(
                f"{name}: {int(wrong.sum())} of {len(got)} values {problem}; first at row {i}: "
                f"got {got[i]!r}, expected {want[i]!r}, off by {got[i] - want[i]:.3g}, allowed {allowed_i:.3g}"
            )


def tolerances(columns, times, horizons=(5, 15, 60, 300, 900), trades=None):
    """How far each column may be from its exactly rounded value, by FEATURES.md section 1, "Accuracy".

    `columns`: doubles over the valid rows of a lane, all of them and those of 3.1 too; `times` in us;
    `trades`: (times, amounts). A column of a column allows for what that one is allowed.
    """
    n = len(times)
    value = {name: np.abs(np.nan_to_num(np.asarray(x, float))) for name, x in columns.items()}
    found = {name: 1e-12 * x for name, x in value.items()}
    mid = value.get("mid_price", np.zeros(n))

    def summed(x, h, more=0):
        total = np.concatenate(([0], np.cumsum(np.asarray(x, np.longdouble))))
        last = np.arange(1, n + 1)
        first = np.searchsorted(times, times - (h + more) * SECOND, side="right")
        return np.maximum((total[last] - total[first]).astype(float), 0), last - first

    def before(x):
        return np.concatenate((np.zeros(1), x[:-1]))[:n]

    def size(i):
        sides = [value.get(f"{side}_size_L{i}", np.zeros(n)) for side in ("bid", "ask")]
        return np.maximum.reduce([*sides, *(before(s) for s in sides)])

    for name in value:
        if "imbalance" in name or name.startswith(("imb_band", "tfi_")):
            found[name] = 1e-12 * (1 + value[name]) / 2  # (B - A) / (B + A): B or A over their sum
        if "slope_regression" in name or "_std_" in name:
            found[name] = 1e-9 * value[name]
    for name in ("weighted_mid_minus_mid", "vwap_spread", "spread"):
        found[name] = 1e-12 * mid
    found["cog_vs_mid"] = np.full(n, 1e-12 * 1e4)
    found["latency_ms"] = 1e-12 * times / 1000
    dt = np.diff(times, prepend=times[:1]) / SECOND
    speed, gap = value.get("mid_velocity", np.zeros(n)), dt + before(dt)
    with np.errstate(all="ignore"):
        found["mid_accel"] = 1e-12 * np.nan_to_num(np.maximum(speed, before(speed)) / (gap / 2), posinf=0)
    for i in range(10):
        found[f"ofi_L{i}" if i else "ofi"] = 1e-12 * size(i)
    found["mlofi"] = 1e-12 * sum(np.exp(-0.5 * i) * size(i) for i in range(10))
    returns = value.get("log_return", np.zeros(n))
    for h in horizons:
        for name in ("ofi", "mlofi"):
            found[f"{name}_sum_{h}s"] = summed(1e-12 * value.get(name, np.zeros(n)) + found[name], h)[0]
        found[f"rv_1s_{h}s"] = 1e-12 * summed(returns, h, 1)[0]
        found[f"signed_vol_{h}s"] = 1e-12 * value.get(f"trade_vol_{h}s", np.zeros(n))
    if trades is not None and n:
        amounts = np.concatenate(([0.0], np.cumsum(trades[1])))
        here = np.searchsorted(trades[0], times, side="right")
        found["signed_trade_vol"] = 1e-12 * (amounts[here] - amounts[np.concatenate((here[:1], here[:-1]))])
    for source, name, h in (
        ("bid_slope_regression", "bid_slope", 60),
        ("ask_slope_regression", "ask_slope", 60),
        ("cog_vs_mid", "cog_momentum", 60),
        ("depth_5bps", "depth_5bps", 300),
    ):
        magnitude, allowed = value.get(source, np.zeros(n)), found.get(source, np.zeros(n))
        total, rows = summed(1e-12 * magnitude + allowed, h)
        found[f"{name}_mean_{h}s"] = total / rows
        deviation = f"{name}_sigma" if name == "depth_5bps" else f"{name}_std_{h}s"
        found[deviation] = 1e-9 * value.get(deviation, np.zeros(n)) + 2 * total / np.sqrt(rows)
    for name in ("ofi_beta", "kyle_lambda"):
        r = np.sqrt(value.get(f"{name}_r2", np.zeros(n)))
        with np.errstate(all="ignore"):  # cov to 1e-9 of the root of both variances
            found[name] = 1e-9 * np.nan_to_num(value.get(name, np.zeros(n)) / r)
        found[f"{name}_r2"] = 2e-9 * r
    return found


def assert_agrees(got, want, lane, valid=None):
    """Columns of the library (as `columns_of` gives them) against those of the naive reference: all that both have.

    Returns their names. Where a row is not valid, by default where the reference says so, every number of
    section 3 is null.
    """
    valid = np.array([flag == "ok" for flag in want["book_flag"]], bool) if valid is None else valid
    texts = [n for n, x in want.items() if any(isinstance(v, str) for v in x) or isinstance(got.get(n), list)]
    numbers = {n: np.array([np.nan if v is None else v for v in x], float) for n, x in want.items() if n not in texts}
    times, tape = lane.times[valid], lane.tape
    allowed = tolerances({n: x[valid] for n, x in numbers.items()}, times, trades=(tape["capture_ts"], tape["amount"]))
    common = [name for name in got if name in want]
    for name in common:
        if name in texts:
            assert list(got[name]) == list(want[name]), name
        elif name in ("row_id", "latency_ms"):
            assert_close(name, got[name], numbers[name], 1e-12 * lane.times / 1000 if name == "latency_ms" else 0)
        else:
            assert np.isnan(got[name][~valid]).all(), f"{name}: a value on a row that is not valid"
            assert_close(name, got[name][valid], numbers[name][valid], allowed[name])
    return common
