"""Bars against their naive references, on generated days; any cut gives the same bars, a prefix their prefix."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import naive_bars
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tickstate
from tickstate.features.barengine import BarBuilder, check_kind, find_kind
from tickstate.features.base import FeatureError
from tickstate.features.registry import default_registry
from tickstate.kernels.bars import UNKNOWN
from tickstate.kernels.tape import TOTALS_STATE, tape_totals

pytestmark = pytest.mark.kernels

SECOND, DAY = 1_000_000, 86_400_000_000
MIDNIGHT = 19_944 * DAY
RULES = {
    "time": ("60s",), "sum": ("tick_3", "volume_2.5", "dollar_250"),
}  # fmt: skip
WEIGHTS = {"tick": None, "volume": "amount", "dollar": "quote_volume"}
RULES["print"] = tuple(f"{w}_{k}_{t}" for w in WEIGHTS for k in ("imbalance", "run") for t in (1, 2, 4))
EVERY = tuple(name for names in RULES.values() for name in names)
OTHERS = {"orderbook": (*naive_bars.BOOK_MEANS.values(), "ofi", "mlofi", "log_return", "mid_price"),
          "ticker": ("spread", "relative_spread", "volume_imbalance", "mid_price")}  # fmt: skip
STEPS = st.sampled_from([0, 0, 0, 1, 400_000, SECOND, 7 * SECOND, 61 * SECOND, 300 * SECOND, 300 * SECOND + 1])


@st.composite
def tapes(draw, max_rows=40):
    """Rows of a day of trades: fills of one order, unknown sides and times, prices that stand still."""
    rows, t, stamp, price = [], MIDNIGHT + draw(st.integers(0, 90)) * SECOND, 0, 100.0
    for _ in range(draw(st.integers(1, max_rows))):
        t, stamp = t + draw(STEPS), stamp + draw(st.sampled_from([0, 0, 1]))
        price += draw(st.sampled_from([-0.5, 0.0, 0.0, 0.5]))
        amount = draw(st.integers(1, 16)) / 8
        rows.append({
            "capture_ts": t, "timestamp": None if draw(st.integers(0, 15)) == 0 else stamp, "price": price,
            "side": draw(st.sampled_from([1.0, 1.0, -1.0, None])), "amount": amount, "quote_volume": price * amount,
            "base": amount, "log_return": draw(st.sampled_from([None, 0.0, 0.25, -0.125])), "trade_id": str(len(rows)),
        })  # fmt: skip
    return rows


@st.composite
def days(draw, channel):
    """Rows of a day of a book or a ticker, any column but the mid null now and then."""
    rows, t = [], MIDNIGHT + draw(st.integers(0, 90)) * SECOND
    value = st.one_of(st.none(), st.integers(-16, 16).map(lambda n: n / 8))
    for _ in range(draw(st.integers(1, 30))):
        t += draw(STEPS)
        row = {name: draw(value) for name in OTHERS[channel]}
        rows.append(row | {"capture_ts": t, "mid_price": 100 + draw(st.integers(0, 40)) / 4, "spread": 0.25})
    return rows


def arrays(rows):
    found = {}
    for name in rows[0]:
        if name == "trade_id":
            continue
        whole = name in ("capture_ts", "timestamp")
        blank = UNKNOWN if whole else math.nan
        values = [blank if r[name] is None else r[name] for r in rows]
        found[name] = np.array(values, np.int64 if whole else np.float64)
    return found


def kind_of(name, channel="trades", **params):
    known = {e.feature.name: params for e in default_registry() if set(params) <= set(e.feature.params)}
    return find_kind(f"{channel}_bars", name, params=known if params else None)


def build(rows, name, cuts=(), channel="trades", end=MIDNIGHT + DAY, closed=True, **params):
    builder, tables = BarBuilder(kind_of(name, channel, **params)), []
    edges = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    for first, last in pairwise(edges):
        part = rows[first:last]
        ids = pa.array([r.get("trade_id") for r in part], pa.string())
        tables.append(builder.push(arrays(part), ids))
    return pa.concat_tables([*tables, builder.finish(end, closed)])


def naive(rows, name, end=MIDNIGHT + DAY, merge=True):
    if name.endswith("s"):
        return naive_bars.time_bars(rows, int(name[:-1]), end)
    what, *_, number = name.split("_")
    if name.count("_") == 1:
        return naive_bars.sum_bars(rows, WEIGHTS[what], float(number), end)
    return naive_bars.print_bars(rows, name.split("_")[1], WEIGHTS[what], int(number), end, merge)


def same(got, want, name=""):
    if want is None or got is None:
        assert got is want, name
    else:
        assert math.isclose(got, want, rel_tol=1e-11, abs_tol=1e-13), (name, got, want)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25)
@given(rows=tapes(), merge=st.booleans())
def test_bars_of_trades(name, rows, merge):
    """Where they end, why, at which threshold, when they are known, and every column."""
    given = {} if merge or name.count("_") < 2 else {"merge_prints": False}
    found = build(rows, name, **given).to_pylist()
    want = naive(rows, name, merge=merge or not given)
    settles = name.count("_") < 2 or bool(given)
    assert [b["trade_count"] for b in found] == [len(w[0]) for w in want]
    for number, (bar, (held, reason, threshold, shown)) in enumerate(zip(found, want, strict=True)):
        assert (bar["bar_id"], bar["bar_reason"], bar["complete"]) == (number, reason, reason != "day_end")
        same(bar["threshold"], threshold, "threshold")
        assert (bar["first_trade_id"], bar["last_trade_id"]) == (held[0]["trade_id"], held[-1]["trade_id"])
        known = held[-1]["capture_ts"] if settles and reason not in ("time", "day_end") else shown
        assert micros(bar["known_at"]) == known
        assert [micros(bar[c]) for c in ("first_ts", "last_ts")] == [held[i]["capture_ts"] for i in (0, -1)]
        if reason == "time":
            assert micros(bar["bar_end"]) == shown
        else:
            assert micros(bar["bar_end"]) == held[-1]["capture_ts"]
        for column, value in naive_bars.trade_columns(held).items():
            same(bar[column], value, column)
        assert bar["volume"] == math.fsum(r["amount"] for r in held), "to the bit"
    for column, of in (("volume", "amount"), ("quote_volume", "quote_volume")):
        assert sum(Fraction(b[column]) for b in found) == sum(Fraction(r[of]) for r in rows), "nothing lost"


def micros(time):
    return round(time.timestamp() * 1e6)


@pytest.mark.parametrize("seconds", [60, 3600])
@pytest.mark.parametrize("channel", ["orderbook", "ticker"])
@settings(max_examples=40)
@given(data=st.data())
def test_time_bars_of_books_and_quotes(channel, seconds, data):
    rows = data.draw(days(channel))
    found = build(rows, f"{seconds}s", channel=channel).to_pylist()
    want = naive_bars.time_bars(rows, seconds, MIDNIGHT + DAY)
    assert len(found) == len(want)
    for bar, (held, _, _, end) in zip(found, want, strict=True):
        columns = naive_bars.book_columns(held, end) if channel == "orderbook" else naive_bars.quote_columns(held)
        for column, value in columns.items():
            same(bar[column], value, column)


def test_a_last_stretch_beyond_staleness_does_not_count():
    """A snapshot a minute before another, and 58 minutes to the bar's end."""
    rows = [dict.fromkeys(OTHERS["orderbook"], 1.0) | {"capture_ts": MIDNIGHT + t * SECOND} for t in (0, 60)]
    (bar,) = build(rows, "3600s", channel="orderbook").to_pylist()
    assert (bar["covered_sec"], bar["twa_spread"]) == (60.0, 1.0)
    (bar,) = build(rows[:1], "3600s", channel="orderbook").to_pylist()
    assert (bar["covered_sec"], bar["twa_spread"], bar["annualized_vol"]) == (0.0, None, None)


@pytest.mark.parametrize("name", ["60s", "tick_3", "volume_2.5", "tick_imbalance_2", "dollar_run_4"])
@settings(max_examples=25)
@given(rows=tapes(), cuts=st.sets(st.integers(1, 39)))
def test_any_cut_gives_the_same_bars(name, rows, cuts):
    assert build(rows, name, cuts).equals(build(rows, name))


@settings(max_examples=25)
@given(data=st.data(), cuts=st.sets(st.integers(1, 29)))
def test_any_cut_of_a_book_too(data, cuts):
    rows = data.draw(days("orderbook"))
    assert build(rows, "60s", cuts, "orderbook").equals(build(rows, "60s", (), "orderbook"))


@pytest.mark.parametrize("name", ["60s", "tick_3", "volume_2.5", "tick_imbalance_2", "dollar_run_4"])
@settings(max_examples=25)
@given(rows=tapes(), n=st.integers(1, 40))
def test_a_prefix_gives_a_prefix(name, rows, n):
    """What an open day shows is never taken back."""
    known = rows[:n]
    early = build(known, name, end=known[-1]["capture_ts"], closed=False)
    assert early.equals(build(rows, name).slice(0, early.num_rows))


@settings(max_examples=40)
@given(rows=tapes(), cuts=st.sets(st.integers(1, 39)))
def test_empty_intervals_are_filled(rows, cuts):
    found = build(rows, "60s", cuts, fill_empty=True)
    bare = build(rows, "60s")
    bars = found.to_pylist()
    starts = [micros(b["bar_start"]) for b in bars]
    assert starts == list(range(starts[0], starts[-1] + 1, 60 * SECOND)), "from the first to the last with a trade"
    assert [b["bar_id"] for b in bars] == list(range(len(bars)))
    kept = found.filter(pa.array([b["trade_count"] > 0 for b in bars]))
    assert kept.drop_columns("bar_id").equals(bare.drop_columns("bar_id"))
    for before, bar in pairwise(bars):
        if not bar["trade_count"]:
            assert (bar["bar_reason"], bar["vwap"], bar["volume"], bar["return"]) == ("empty", None, 0.0, 0.0)
            assert {bar[c] for c in ("open", "high", "low", "close")} == {before["close"]}
            assert micros(bar["known_at"]) == micros(bar["bar_end"]) == micros(bar["bar_start"]) + 60 * SECOND
            assert bar["first_ts"] is bar["first_trade_id"] is bar["trade_imbalance"] is None


def test_no_rows_are_no_bars():
    assert BarBuilder(kind_of("60s")).finish(MIDNIGHT + DAY, True).num_rows == 0


@settings(max_examples=40)
@given(rows=tapes(), cut=st.integers(0, 40))
def test_totals_of_a_tape(rows, cut):
    """What thresholds are derived from: trades, prints, exact sums, in any chunks."""
    state, out = np.zeros(1, TOTALS_STATE), np.zeros(4)
    for part in (rows[:cut], rows[cut:]):
        if part:
            a = arrays(part)
            tape_totals(a["timestamp"], a["side"], a["amount"], a["quote_volume"], state, out)
    sums = [math.fsum(r[c] for r in rows) for c in ("amount", "quote_volume")]
    assert out.tolist() == [len(rows), len(naive_bars.prints_of(rows)), *sums]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["60s", "tick_50", "volume_1000", "dollar_run_20"])
@pytest.mark.parametrize("seed", range(4))
def test_sums_to_the_last_bit(name, seed):
    """Of amounts that are no short binary fractions, small beside large, over chunks: as math.fsum rounds them."""
    rng, n = np.random.default_rng(seed), 20_000
    sizes = np.round(rng.lognormal(0.0, 1.5, n), 3) + 0.001 if seed % 2 else rng.lognormal(0.0, 4.0, n)
    rows = [
        {"capture_ts": MIDNIGHT + i * 4_000_000, "timestamp": i // 3, "price": 60_000.1, "side": side, "amount": amount,
         "quote_volume": 60_000.1 * amount, "base": amount, "log_return": 0.0, "trade_id": None}
        for i, (amount, side) in enumerate(zip(sizes.tolist(), rng.choice([1.0, -1.0], n).tolist(), strict=True))
    ]  # fmt: skip
    bars, begin = build(rows, name, cuts=(7, 9_999, 10_000)).to_pylist(), 0
    for bar in bars:
        held = rows[begin : begin + bar["trade_count"]]
        begin += len(held)
        for column, of in (("volume", held), ("buy_volume", [r for r in held if r["side"] > 0])):
            assert bar[column] == math.fsum(r["amount"] for r in of)
        assert bar["quote_volume"] == math.fsum(r["quote_volume"] for r in held)
    assert begin == n
    state, out = np.zeros(1, TOTALS_STATE), np.zeros(4)
    a = arrays(rows)
    tape_totals(a["timestamp"], a["side"], a["amount"], a["quote_volume"], state, out)
    assert out[2] == math.fsum(sizes)


@pytest.mark.parametrize(("name", "says"), [
    ("tick_0", "did you mean 'tick_1000'?"), ("volume_1e3", "did you mean 'volume_1000'?"),
    ("tick_run_99999999999999999999", "below 9.0072e+15"), ("volume_500.", "did you mean 'volume_500'?"),
    ("61s", "divisor of a day"), ("tick_imbalnce_5", "did you mean 'tick_imbalance_5'?"), ("tick_2.5", "like tick_2"),
    ("volume_0500", "did you mean 'volume_500'?"), ("bars", "one of {seconds}s, tick_{threshold}"),
])  # fmt: skip
def test_a_wrong_kind_says_what_there_is(name, says):
    with pytest.raises(FeatureError) as error:
        check_kind(name)
    assert says in str(error.value)


@pytest.mark.parametrize("value", [0, -1, "fast", float("nan"), float("inf"), True, 2**53])
def test_a_wrong_threshold(value):
    with pytest.raises(FeatureError, match="above 0"):
        kind_of("volume", threshold=value)


@pytest.mark.parametrize("name", ["tick", "volume_run", "tick_imbalance"])
def test_a_threshold_that_counts_is_whole(name):
    """Half a print would be cut to none, and no bar would ever end."""
    with pytest.raises(FeatureError, match="a whole number, like"):
        kind_of(name, threshold=2.5)
    assert kind_of(name, threshold=2).rule["threshold"] == 2.0


def test_bars_in_memory_say_what_is_missing():
    with pytest.raises(FeatureError, match="no column"):
        tickstate.bars(pa.table({"exchange": ["a"], "symbol": ["b"], "capture_ts": [1]}), "60s")
