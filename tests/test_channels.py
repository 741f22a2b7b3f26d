"""The channels trades and ticker (FEATURES.md 4 and 5): by hand, against tests/naive_channels.py, against polars."""

import math
import os

import lakes
import naive
import naive_channels
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import tapes
from hypothesis import given
from hypothesis import strategies as st
from lakes import MIDNIGHT, SECOND, assert_close, ln
from tapes import quote, trade

import tickstate

pytestmark = pytest.mark.kernels

S = SECOND
HORIZONS = (60, 300, 900)


def of_trades(rows, **config):
    """Columns of some trades, as dicts."""
    return tickstate.compute(lakes.bronze_table("trades", rows), channel="trades", config=config or None).to_pylist()


def of_quotes(rows, **config):
    return tickstate.compute(lakes.bronze_table("ticker", rows), channel="ticker", config=config or None).to_pylist()


def pick(row, *names):
    return tuple(row[name] for name in names)


# ---- trades by hand


def test_a_trade():
    rows = [trade(MIDNIGHT, 2.0, "buy", "7", 50.0), trade(MIDNIGHT + S, 3.0, "sell", None, 60.0)]
    rows.append(trade(MIDNIGHT + S, 4.0, None, None, 80.0, timestamp=MIDNIGHT // 1000 + 1500))
    one, two, three = of_trades(rows)
    names = ("is_buy", "quote_volume", "signed_volume", "log_return", "day_of_week", "is_weekend", "row_id")
    assert pick(one, *names) == (1, 100.0, 2.0, None, 5, False, 0)  # 2024-08-09 is a Friday
    assert pick(two, *names) == (0, 180.0, -3.0, ln(60 / 50), 5, False, 1)
    assert pick(three, *names) == (None, 320.0, None, ln(80 / 60), 5, False, 2)
    assert pick(one, "trade_id", "side", "price", "amount", "latency_ms") == ("7", "buy", 50.0, 2.0, 0.0)
    assert three["latency_ms"] == -500.0
    windows = ("volume_60s", "quote_volume_60s", "trade_count_60s", "vwap_60s", "buy_ratio_60s")
    assert pick(three, *windows) == (9.0, 600.0, 3, 600 / 9, 0.5)
    assert three["realized_var_60s"] == pytest.approx(math.log(1.2) ** 2 + math.log(80 / 60) ** 2, rel=1e-14)
    assert one["realized_var_60s"] is None


def test_an_inverse_contract():
    """An amount is a number of contracts of 100 dollars: not base currency."""
    facts = {"lanes": {"demo/A-B": {"contract_size": 100, "inverse": True}}}
    rows = [trade(MIDNIGHT, 2.0, price=50.0), trade(MIDNIGHT + S, 3.0, price=100.0)]
    one, two = of_trades(rows, **facts)
    assert pick(one, "quote_volume", "signed_volume") == (200.0, 2.0)
    assert pick(two, "quote_volume_60s", "volume_60s") == (500.0, 5.0)
    assert two["vwap_60s"] == 500 / (200 / 50 + 300 / 100)


def test_a_contract_of_another_size():
    facts = {"lanes": {"demo/A-B": {"contract_size": 0.01}}}
    rows = [trade(MIDNIGHT, 2.0, price=50.0), trade(MIDNIGHT + S, 6.0, price=100.0)]
    two = of_trades(rows, **facts)[1]
    assert two["quote_volume"] == 100 * 6.0 * 0.01
    assert two["vwap_60s"] == pytest.approx(700 / 8, rel=1e-15)
    assert two["volume_60s"] == 8.0


def test_facts_of_another_lane_are_not_used():
    facts = {"lanes": {"demo/C-D": {"contract_size": 100}, "other/A-B": {"inverse": True}}}
    assert of_trades([trade(MIDNIGHT, 2.0, price=50.0)], **facts)[0]["quote_volume"] == 100.0


@pytest.mark.parametrize(("gap", "known"), [(300 * S, True), (300 * S + 1, False)])
def test_a_return_over_a_gap_is_unknown(gap, known):
    rows = [trade(MIDNIGHT, price=50.0), trade(MIDNIGHT + gap, price=60.0), trade(MIDNIGHT + gap, price=50.0)]
    found = of_trades(rows)
    assert found[1]["log_return"] == (ln(60 / 50) if known else None)
    assert found[2]["log_return"] == ln(50 / 60)
    assert found[2]["trade_count_900s"] == 3  # windows are not reset


@pytest.mark.parametrize("column", ["price", "amount"])
@pytest.mark.parametrize("bad", tapes.BAD)
def test_a_bad_trade_keeps_its_row_only(column, bad):
    rows = [trade(MIDNIGHT + i * S, trade_id=str(i), price=50.0 + i) for i in range(3)]
    rows[1][column] = bad
    found = of_trades(rows)
    features = [n for n in found[1] if n not in (*lakes.PARTITION, "capture_ts", "timestamp", "trade_id", "side")]
    others = {"row_id", "latency_ms", "price", "amount"}
    assert {found[1][n] for n in features if n not in others} == {None}
    assert pick(found[1], "row_id", "latency_ms", "trade_id", "side") == (1, 0.0, "1", "buy")
    as_written = None if bad is not None and math.isnan(bad) else bad  # NaN is null in silver
    assert found[1][column] == as_written
    assert pick(found[2], "log_return", "trade_count_60s") == (ln(52 / 50), 2)


def test_the_days_of_a_week():
    rows = [trade(MIDNIGHT + i * 86_400 * S - e) for i in range(8) for e in (1, 0)]
    found = of_trades(rows)
    assert [r["day_of_week"] for r in found] == [4, 5, 5, 6, 6, 7, 7, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert [r["is_weekend"] for r in found] == [r["day_of_week"] in (6, 7) for r in found]


def test_row_ids_begin_anew_each_hour():
    rows = [trade(MIDNIGHT + t * S) for t in (-2, -1, 0, 1, 3599, 3600)]
    assert [r["row_id"] for r in of_trades(rows)] == [0, 1, 0, 1, 2, 0]
    quotes = [quote(MIDNIGHT + t * S) for t in (-2, -1, 0, 1, 3599, 3600)]
    assert [r["row_id"] for r in of_quotes(quotes)] == [0, 1, 0, 1, 2, 0]


# ---- quotes by hand


def test_a_quote():
    one, two = of_quotes([quote(MIDNIGHT, 99, 101, 3, 1), quote(MIDNIGHT + S, 100, 101, 0, 2)])
    names = ("spread", "mid_price", "relative_spread", "volume_imbalance", "day_of_week", "is_weekend")
    assert pick(one, *names) == (2.0, 100.0, 0.02, 0.5, 5, False)
    assert pick(two, *names) == (1.0, 100.5, 1 / 100.5, -1.0, 5, False)
    assert pick(one, "mid_price_mean_60s", "mid_price_std_60s", "spread_mean_60s") == (100.0, None, 2.0)
    assert pick(two, "mid_price_mean_60s", "spread_mean_60s", "vol_imbalance_mean_60s") == (100.25, 1.5, -0.25)
    assert two["mid_price_std_60s"] == pytest.approx(math.sqrt(0.125), rel=1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        *({side: value} for side in ("bid", "ask") for value in tapes.BAD),
        {"bid": 101.0, "ask": 101.0}, {"bid": 102.0, "ask": 101.0},
    ],
)  # fmt: skip
def test_a_bad_quote_keeps_its_row_only(bad):
    rows = [quote(MIDNIGHT + i * S, 99 + i, 101 + i) for i in range(3)]
    rows[1] |= bad
    found = of_quotes(rows)
    made = {name for f in lakes.features_of("ticker").values() for name in f.names}
    assert {found[1][name] for name in made} == {None}
    assert pick(found[1], "row_id", "latency_ms") == (1, 0.0)
    assert found[2]["mid_price_mean_60s"] == 101.0
    assert found[2]["mid_price_std_60s"] == pytest.approx(math.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("volumes", [(None, 1), (1, None), (math.nan, 1), (math.inf, 1), (-1, 3), (3, -1), (0, 0)])
def test_a_bad_volume_spoils_the_imbalance_only(volumes):
    rows = [quote(MIDNIGHT, 99, 101, 3, 1), quote(MIDNIGHT + S, 99, 101, *volumes), quote(MIDNIGHT + 2 * S, 99, 101)]
    found = of_quotes(rows)
    assert pick(found[1], "volume_imbalance", "mid_price", "vol_imbalance_mean_60s") == (None, 100.0, 0.5)
    assert found[2]["vol_imbalance_mean_60s"] == 0.25


def test_equal_quotes_of_one_time_are_one():
    rows = [quote(MIDNIGHT), quote(MIDNIGHT), quote(MIDNIGHT, ask_volume=2.0), quote(MIDNIGHT + 1)]
    rows += [quote(MIDNIGHT + 1, bid_volume=None), quote(MIDNIGHT + 1, bid_volume=None)]
    assert len(of_quotes(rows)) == 4
    assert len(of_quotes([row | {"collected_at": i} for i, row in enumerate(rows)])) == 6


# ---- against the naive reference


def keyed(rows):
    """With exchange times that put rows in their order, unless two are equal (and then one is a repeat)."""
    for i, row in enumerate(rows):
        same = i and all(row[n] == rows[i - 1][n] for n in ("capture_ts", "bid", "ask", "bid_volume", "ask_volume"))
        row["timestamp"] = rows[i - 1]["timestamp"] if same else row["capture_ts"] // 1000 + i
    return rows


@given(
    tapes.trades(max_rows=16),
    st.sampled_from(({}, {"contract_size": 0.01}, {"contract_size": 100.0, "inverse": True}, {"inverse": True})),
    st.sampled_from((300.0, 2.5)),
)
def test_trades_agree_with_the_naive_reference(rows, facts, stale):
    rows = [row | {"timestamp": row["capture_ts"] // 1000 + i} for i, row in enumerate(rows)]
    config = {"lanes": {"demo/A-B": facts}, "run": {"max_staleness": stale}}
    table = tickstate.compute(lakes.bronze_table("trades", rows[::-1]), channel="trades", config=config)
    rows = naive.drop_duplicates(rows)
    lane, valid = lakes.Lane("trades", rows), np.array([naive.trade_is_good(row) for row in rows], bool)
    want = naive_channels.trades(rows, max_staleness=stale, **facts)
    common = lakes.assert_agrees(lakes.columns_of(table), want, lane, valid)
    assert {*want} <= {*common}
    assert len(common) == 2 + 6 + 18


@given(tapes.quotes(max_rows=16))
def test_quotes_agree_with_the_naive_reference(rows):
    rows = keyed(rows)
    table = tickstate.compute(lakes.bronze_table("ticker", rows[::-1]), channel="ticker")
    rows = naive.drop_duplicates(rows)
    lane, valid = lakes.Lane("ticker", rows), np.array([naive_channels.quote_is_good(row) for row in rows], bool)
    want = naive_channels.ticker(rows)
    common = lakes.assert_agrees(lakes.columns_of(table), want, lane, valid)
    assert {*want} <= {*common}
    assert len(common) == 2 + 6 + 12


# ---- against polars


LANES = [("binance", "BTC-USDT", {}), ("binancecoinm", "BTC-USD", {"contract_size": 100.0, "inverse": True})]
INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
needs_bronze = pytest.mark.skipif(
    not tapes.has_bronze() or INTERPRETED, reason=f"no real data: {tapes.SHARED}/bronze is absent, or no compiler"
)


@pytest.fixture(scope="module", params=LANES, ids=lambda lane: lane[0])
def lane(request):
    """(name, facts) of a lane; its channels are read when asked for."""
    return request.param


def with_polars(exchange, symbol, channel, expressions, facts):
    """The library's columns of a lane, and polars' expressions over the same rows, at the last row of each time."""
    config = {"lanes": {f"{exchange}/{symbol}": facts}}
    table = tickstate.compute(tapes.real(channel, exchange, symbol), channel=channel, config=config)
    found = pl.from_arrow(table.drop_columns([*lakes.PARTITION])).with_columns(pl.col("capture_ts").set_sorted())
    assert found["capture_ts"].is_sorted()
    last = np.append(np.diff(lakes.floats(table["capture_ts"].cast(pa.int64()))) > 0, True)
    assert 0.1 * len(last) < last.sum() <= len(last)
    return found.filter(last), found.with_columns(**expressions).filter(last)


def compare(ours, theirs, names, allowed):
    for name in names:
        got, want = (frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for frame in (ours, theirs))
        assert np.isfinite(want).sum() > 100, name
        assert_close(name, got, want, allowed(name, np.abs(want)))


@needs_bronze
def test_trades_agree_with_polars(lane):
    exchange, symbol, facts = lane
    size, inverse = facts.get("contract_size", 1.0), facts.get("inverse", False)
    notional = pl.col("amount") * size
    quoted, base = (notional, notional / pl.col("price")) if inverse else (pl.col("price") * notional, notional)

    def over(values, h):
        return values.rolling_sum_by("capture_ts", window_size=f"{h}s", closed="right")

    square = pl.col("price").log().diff().pow(2)
    buy, sided = ((pl.col("side") == "buy").cast(pl.Float64), pl.col("side").is_not_null().cast(pl.Float64))
    expressions = {}
    for h in HORIZONS:
        expressions |= {
            f"volume_{h}s": over(pl.col("amount"), h),
            f"quote_volume_{h}s": over(quoted, h),
            f"trade_count_{h}s": over(pl.col("price").is_not_null().cast(pl.Float64), h),
            f"vwap_{h}s": over(quoted, h) / over(base, h),
            f"buy_ratio_{h}s": over(buy, h) / over(sided, h),
            f"realized_var_{h}s": pl.when(pl.int_range(pl.len()) > 0).then(over(square, h)),  # polars: of nulls 0
        }
    expressions |= {"log_return": pl.col("price").log().diff(), "quote_volume": quoted}
    expressions |= {"day_of_week": pl.col("capture_ts").dt.weekday()}
    ours, theirs = with_polars(exchange, symbol, "trades", expressions, facts)
    # polars adds and subtracts: it drifts, by far less than this
    compare(ours, theirs, expressions, lambda name, want: 1e-14 if name == "log_return" else 1e-9 * want + 1e-15)


@needs_bronze
def test_quotes_agree_with_polars(lane):
    exchange, symbol, facts = lane
    good = (pl.col("bid") > 0) & (pl.col("bid") < pl.col("ask"))

    def over(name, h, how="mean", **more):
        values = getattr(pl.col(name), f"rolling_{how}_by")
        return values("capture_ts", window_size=f"{h}s", closed="right", **more)

    expressions = {}
    for h in HORIZONS:
        expressions |= {
            f"mid_price_mean_{h}s": over("mid_price", h),
            f"mid_price_std_{h}s": over("mid_price", h, "std", ddof=1),
            f"spread_mean_{h}s": over("spread", h),
            f"vol_imbalance_mean_{h}s": over("volume_imbalance", h),
        }
    ours, theirs = with_polars(exchange, symbol, "ticker", expressions, facts)
    bronze = pl.from_arrow(tapes.real("ticker", exchange, symbol))
    assert bronze.select(good.all()).item()  # so that all rows count here and there
    mid = float(ours["mid_price"].max())
    std = 1e-7 * mid  # polars' moving variance drifts at these prices
    compare(ours, theirs, expressions, lambda n, want: std if "std" in n else 1e-9 * np.maximum(want, 1e-3))
