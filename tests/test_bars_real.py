"""All kinds of bars of the real bronze beside the checkout: against polars, naive references, and the tape's totals."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import naive_bars
import polars as pl
import pytest
import tapes

import tickstate
from tickstate.runners.config import make_config
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Watcher

BRONZE = Path(__file__).parents[2] / "shared" / "bronze"
pytestmark = [
    pytest.mark.skipif(not BRONZE.exists(), reason="no real data at ../shared/bronze"),
    pytest.mark.slow,
]
TIMES = ("60s", "300s", "900s", "3600s")
EVENTS = {
    "tick_1000": (None, 1000.0), "volume_20": ("amount", 20.0), "dollar_250000": ("quote_volume", 250_000.0),
    "tick_imbalance_50": (None, 50), "volume_imbalance_50": ("amount", 50),
    "dollar_imbalance_50": ("quote_volume", 50), "tick_run_50": (None, 50), "volume_run_50": ("amount", 50),
    "dollar_run_50": ("quote_volume", 50),
}  # fmt: skip
LANES = (("binance", "BTC-USDT"), ("binancecoinm", "BTC-USD"))
CONFIG = {"lanes": {"binancecoinm/BTC-USD": {"inverse": True, "contract_size": 100.0}}}
BOOK_FEATURES = ("mid_price", *naive_bars.BOOK_MEANS.values(), "ofi", "mlofi", "log_return")
lanes = pytest.mark.parametrize("lane", LANES, ids="/".join)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Bronze to silver to gold in one go."""
    place = tmp_path_factory.mktemp("bars")
    summary = run(place)
    assert (summary.exit_code, len(summary.failed)) == (0, 0)
    return place


def run(place, **options):
    chosen = {"runner": "single", "bars": [*TIMES, *EVENTS], "config": CONFIG, **options}
    return tickstate.run(bronze=BRONZE, silver=place / "silver", gold=place / "gold", **chosen)


def scan(lake, tier, channel, lane):
    table = tickstate.scan(lake / tier, channel, exchange=lane[0], symbol=lane[1]).to_table()
    return pl.from_arrow(table)


def agree(got, want):
    """Column by column, nulls exactly."""
    assert got.height == want.height
    for name in want.columns:
        left, right = got[name].to_list(), want[name].to_list()
        for a, b in zip(left, right, strict=True):
            assert (a is None) == (b is None), name
            assert a is None or a == b or math.isclose(a, b, rel_tol=1e-10, abs_tol=1e-15), (name, a, b)


def prices(name):
    p = pl.col(name)
    ohlc = {"open": p.first(), "high": p.max(), "low": p.min(), "close": p.last(), "return": p.last() / p.first() - 1}
    return ohlc | {"range": (p.max() - p.min()) / p.first()}


def total(name, squared=False):
    """A sum, null without a value."""
    column = pl.col(name) ** 2 if squared else pl.col(name)
    return pl.when(pl.col(name).count() > 0).then(column.sum())


COLUMNS = {
    "orderbook": prices("mid_price") | {n: pl.col(of).mean() for n, of in naive_bars.BOOK_MEANS.items()} | {
        "sum_ofi": total("ofi"), "sum_mlofi": total("mlofi"), "snapshot_count": pl.len(),
        "realized_variance": total("log_return", True), "log_return_cc": total("log_return"),
    },
    "ticker": prices("mid_price") | {"tick_count": pl.len()} | {
        f"mean_{n}": pl.col(n).mean() for n in ("spread", "relative_spread", "volume_imbalance")
    },
    "trades": prices("price") | {
        "volume": pl.col("amount").sum(), "quote_volume": pl.col("quote_volume").sum(), "trade_count": pl.len(),
        "buy_volume": pl.col("amount").filter(pl.col("side") == "buy").sum(),
        "sell_volume": pl.col("amount").filter(pl.col("side") == "sell").sum(),
        "vwap": pl.col("quote_volume").sum() / pl.col("base").sum(),
        "realized_variance": total("log_return", True), "log_return_cc": total("log_return"),
        "first_trade_id": pl.col("trade_id").first(), "last_trade_id": pl.col("trade_id").last(),
    },
}  # fmt: skip


def silver(lake, channel, lane):
    rows = scan(lake, "silver", channel, lane)
    if channel != "trades":
        return rows.filter(pl.col("mid_price").is_not_null())
    base = pl.col("amount") * 100.0 / pl.col("price") if lane[1] == "BTC-USD" else pl.col("amount")
    return rows.filter(pl.col("quote_volume").is_not_null()).with_columns(base.alias("base"))


@lanes
@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("channel", COLUMNS)
def test_time_bars_against_polars(lake, channel, kind, lane):
    groups = silver(lake, channel, lane).group_by_dynamic("capture_ts", every=kind)
    want = groups.agg(**COLUMNS[channel]).rename({"capture_ts": "bar_start"})
    got = scan(lake, "gold", f"{channel}_bars/{kind}", lane)
    agree(got, want)
    assert got["known_at"].equals(got["bar_end"], null_equal=True)


@lanes
@pytest.mark.parametrize("max_staleness", [300.0, 0.1])
def test_time_bars_of_books_against_naive(lake, lane, max_staleness, tmp_path):
    """Columns that polars has no word for: time-weighted spread, the 1 s grid; also where many stretches are stale."""
    if max_staleness != 300.0:
        config = {"run": {"max_staleness": max_staleness, "features": [*BOOK_FEATURES]}}
        run(tmp_path, config=config, bars="60s", channel="orderbook", exchange=lane[0])
        lake = tmp_path
    rows = in_micros(silver(lake, "orderbook", lane))
    got = in_micros(scan(lake, "gold", "orderbook_bars/60s", lane))
    want = naive_bars.time_bars(rows, 60, None)
    for bar, (held, _, _, end) in zip(got, want, strict=True):
        for name, value in naive_bars.book_columns(held, end, max_staleness).items():
            assert math.isclose(bar[name], value, rel_tol=1e-9, abs_tol=1e-15), name
    assert max_staleness == 300.0 or any(0 < b["covered_sec"] < 59.9 for b in got[1:-1])


@lanes
def test_the_return_across_midnight_is_in(lake, lane):
    """The first bar's, as the silver before it is that of the day before."""
    bars = scan(lake, "gold", "orderbook_bars/60s", lane)
    (last,), (first,) = (bars.filter(pl.col("day") == d).to_dicts()[i : i + 1 or None] for d, i in ((8, -1), (9, 0)))
    assert math.isclose(first["log_return_cc"], math.log(first["close"] / last["close"]), rel_tol=1e-9)
    rows = silver(lake, "orderbook", lane).filter(pl.col("day") == 9)
    assert rows["log_return"][0] is not None


def in_micros(table):
    rows = table.with_columns(pl.col(pl.Datetime).dt.timestamp("us")).to_dicts()
    sides = {"buy": 1.0, "sell": -1.0}
    return [r | {"side": sides.get(r["side"])} if "side" in r else r for r in rows]


def polars_means(values, span):
    """The expectations before each print, by polars."""
    return pl.Series(values).cast(pl.Float64).ewm_mean(span=span, adjust=True).shift(1).to_list()


@lanes
@pytest.mark.parametrize("kind", EVENTS)
def test_event_bars_against_naive(lake, kind, lane):
    """Every bar of the whole tape: its trades, reason, threshold, when it is known, and every column."""
    rows, bars = in_micros(silver(lake, "trades", lane)), in_micros(scan(lake, "gold", f"trades_bars/{kind}", lane))
    weight, number = EVENTS[kind]
    for day in sorted({r["day"] for r in rows}):
        mine = [r for r in rows if r["day"] == day]
        end = (mine[0]["capture_ts"] // naive_bars.DAY + 1) * naive_bars.DAY
        if kind.count("_") == 1:
            want = naive_bars.sum_bars(mine, weight, number, end)
        else:
            want = naive_bars.print_bars(mine, kind.split("_")[1], weight, number, end, means=polars_means)
        got = [b for b in bars if b["day"] == day]
        assert len(want) > 1
        for bar, (held, reason, threshold, shown) in zip(got, want, strict=True):
            assert (bar["trade_count"], bar["bar_reason"], bar["known_at"]) == (len(held), reason, shown)
            assert (bar["first_trade_id"], bar["last_trade_id"]) == (held[0]["trade_id"], held[-1]["trade_id"])
            assert bar["complete"] == (reason != "day_end")
            assert math.isclose(bar["threshold"], threshold, rel_tol=1e-10)
            columns = naive_bars.trade_columns(held)
            for name, value in columns.items():
                assert (bar[name] is None) == (value is None), name
                assert value is None or math.isclose(bar[name], value, rel_tol=1e-10, abs_tol=1e-15), name
            for name in ("volume", "quote_volume", "buy_volume", "sell_volume"):
                assert bar[name] == columns[name], "to the last bit"


@lanes
@pytest.mark.parametrize("kind", [*TIMES, *EVENTS])
def test_nothing_of_the_tape_is_lost(lake, kind, lane):
    """Counts, amounts to their last digit, and both sums of doubles as they round."""
    tape, bars = silver(lake, "trades", lane), scan(lake, "gold", f"trades_bars/{kind}", lane)
    assert bars["trade_count"].sum() == tape.height
    digits = Decimal("1e-8")
    want = sum(Decimal(x).quantize(digits) for x in tape["amount"])
    assert sum(Decimal(x).quantize(digits) for x in bars["volume"]) == want
    for column, of in (("volume", "amount"), ("quote_volume", "quote_volume")):
        assert math.fsum(bars[column]) == math.fsum(tape[of])


def everything(place):
    """Partitions and commit records of gold, byte by byte."""
    return {p.relative_to(place): p.read_bytes() for p in place.rglob("*") if p.suffix in (".parquet", ".json")}


@pytest.mark.parametrize("runner", ["batch", "watcher"])
def test_other_runners_give_the_same_bytes(lake, tmp_path, runner):
    """Commit records too; and each says what it did."""
    if runner == "batch":
        summary = run(tmp_path, runner="batch", workers=2)
    else:
        places = BRONZE, tmp_path / "silver", tmp_path / "gold"
        summary = Watcher(Selection(*places, bars=(*TIMES, *EVENTS), config=make_config(CONFIG))).run(once=True)
    assert len(summary.computed) == summary.partitions > 0
    assert summary.up_to_date == 0
    assert everything(tmp_path / "gold") == everything(lake / "gold")


def test_the_silver_of_gold_alone_is_enough(lake, tmp_path):
    kinds = ["60s", "volume_run_50"]
    tickstate.run(silver=lake / "silver", gold=tmp_path, bars=kinds, runner="single")
    want = {n: b for n, b in tapes.parts(lake / "gold").items() if n.split("/")[1] in kinds}
    assert tapes.parts(tmp_path) == want
