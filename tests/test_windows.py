"""FEATURES.md 3.4 and 3.5: windows against exactly rounded sums, their edges, and that older rows do not matter."""

import functools
import math
from itertools import pairwise

import lakes
import naive
import naive_channels
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import MIDNIGHT, SECOND, bits, book_table, books, snapshot

import tickstate
from tickstate.kernels import cells, regime, sample
from tickstate.kernels._jit import interpreted
from tickstate.kernels.moments import MOMENTS, moment_window
from tickstate.kernels.window import BLOCKS, MEAN, ROOT_OF_SQUARES, SUM, SUMS, find_edges, sum_windows

pytestmark = pytest.mark.kernels

H = 8 * SECOND  # the width the kernel tests use: blocks of one second


# ---- kernels


@st.composite
def series(draw, values=None, min_rows=1, max_rows=40, start=0):
    """(times, values): times ascend and repeat, with steps at, about and beyond the blocks of H; some values NaN."""
    if values is None:
        values = st.one_of(st.floats(-100, 100), st.floats(-1e-9, 1e-9), st.sampled_from((0.0, 1e6, -1e6, 1.0)))
    steps = st.one_of(
        st.sampled_from((0, 0, 1, SECOND - 1, SECOND, SECOND + 1, H - 1, H, H + 1, 3 * H)), st.integers(0, 2 * SECOND)
    )
    n = draw(st.integers(min_rows, max_rows))
    times = draw(st.sampled_from((MIDNIGHT, MIDNIGHT - 1, start))) + np.cumsum([draw(steps) for _ in range(n)])
    return times.astype(np.int64), np.array([draw(values) for _ in range(n)])


@st.composite
def series_with_nulls(draw):
    times, x = draw(series())
    holes = draw(st.lists(st.booleans(), min_size=len(x), max_size=len(x)))
    return times, np.where(holes, np.nan, x)


def windows_of(times, x, width):
    """For every row its window's values, as the page writes it."""
    return [
        [v for t, v in zip(times[: i + 1], x, strict=False) if t > times[i] - width and not math.isnan(v)]
        for i in range(len(x))
    ]


def sum_of(values):
    """One after the other, from 0.0: ``sum`` corrects what it rounds off since Python 3.12."""
    return functools.reduce(float.__add__, map(float, values), 0.0)


def sums(times, x, kind, start=0, widths=(H,)):
    out = np.empty((len(widths), len(x) - start))
    memory = np.zeros(len(widths), SUMS)
    sum_windows(times, x, x, x, x, start, memory, np.array(widths, np.int64), np.array([kind]), out)
    return out


def moments(times, x, start=0, width=H):
    out = np.empty((2, len(x) - start))
    moment_window(times, x, x, x, start, np.zeros(1, MOMENTS), width, np.array([1]), out)
    return out


@given(series_with_nulls())
def test_sums_to_1e_12_of_the_magnitudes(data):
    times, x = data
    windows = windows_of(times.tolist(), x.tolist(), H)
    total, mean, root = (sums(times, x, kind)[0] for kind in (SUM, MEAN, ROOT_OF_SQUARES))
    for i, window in enumerate(windows):
        if not window:
            assert np.isnan([total[i], mean[i], root[i]]).all()
            continue
        allowed = 1e-12 * math.fsum(abs(v) for v in window)
        assert abs(total[i] - math.fsum(window)) <= allowed
        assert abs(mean[i] - math.fsum(window) / len(window)) <= allowed / len(window)
        exact = math.sqrt(math.fsum(v * v for v in window))
        assert abs(root[i] - exact) <= 1e-12 * exact


@given(series(), st.one_of(series(), series(start=MIDNIGHT + 5 * SECOND)), st.sampled_from((0, 8, SECOND, H, 3 * H)))
def test_where_windows_begin(events, queries, width):
    times, asked = events[0], queries[0]
    for known in (times, times[:0]):
        edges = np.full(len(asked), -7, np.int64)
        find_edges(known, asked, width, edges)
        np.testing.assert_array_equal(edges, np.searchsorted(known, asked - width, side="right"))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_which_a_window_is_added(seed):
    """The bits of a sum are part of what a version means."""
    rng = np.random.default_rng(seed)
    times = MIDNIGHT + np.cumsum(rng.integers(0, SECOND // 2, 150))
    x = np.where(rng.random(150) < 0.1, np.nan, rng.standard_normal(150))
    found = sums(times, x, SUM)[0]
    for i, now in enumerate(times // SECOND):
        seen = [(t, t // SECOND, v) for t, v in zip(times[: i + 1], x, strict=False) if not math.isnan(v)]
        oldest = [v for t, b, v in seen if b == now - BLOCKS and t > times[i] - H]
        blocks = [sum_of(v for _, b, v in seen if b == block) for block in range(now - BLOCKS + 1, now + 1)]
        want = (sum_of(reversed(oldest)) + sum_of(blocks[:-1])) + blocks[-1]
        assert math.isnan(found[i]) or bits(found[i]) == bits(want)


def test_times_before_1970():
    times = np.array([-5, -4, -3, 0, 1], np.int64) * SECOND
    np.testing.assert_array_equal(sums(times, np.ones(5), SUM)[0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(moments(times, np.ones(5))[0], np.ones(5))


@given(series_with_nulls(), st.sampled_from((8, 1000, H, 10**6 * SECOND)))
def test_every_width_is_a_window_by_itself(data, other):
    times, x = data
    both, one = sums(times, x, SUM, widths=(H, other)), sums(times, x, SUM)
    np.testing.assert_array_equal(bits(both[0]), bits(one[0]))
    windows = windows_of(times.tolist(), x.tolist(), other)
    for got, window in zip(both[1], windows, strict=True):
        assert (math.isnan(got) and not window) or abs(got - math.fsum(window)) <= 1e-12 * math.fsum(map(abs, window))


@pytest.mark.parametrize("kind", [SUM, MEAN, ROOT_OF_SQUARES])
def test_a_row_exactly_as_old_as_the_window_is_out(kind):
    times = MIDNIGHT + np.array([0, 1, H, H, H + 1], np.int64)
    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    windows = [[1], [1, 2], [2, 4], [2, 4, 8], [4, 8, 16]]  # a later row of the same time is not yet in
    fold = {SUM: sum, MEAN: lambda w: sum(w) / len(w), ROOT_OF_SQUARES: lambda w: math.sqrt(sum(v * v for v in w))}
    assert sums(times, x, kind)[0].tolist() == [fold[kind](w) for w in windows]


def test_the_edges_hold_for_moments_too():
    times = MIDNIGHT + np.array([0, 1, H, H, H + 1], np.int64)
    mean, deviation = moments(times, np.array([1.0, 2.0, 4.0, 8.0, 16.0]))
    windows = [[1], [1, 2], [2, 4], [2, 4, 8], [4, 8, 16]]
    np.testing.assert_allclose(mean, [np.mean(w) for w in windows], rtol=1e-15)
    np.testing.assert_allclose(deviation, [np.nan, *(np.std(w, ddof=1) for w in windows[1:])], rtol=1e-14)


@given(series_with_nulls(), st.data())
def test_moments_agree_with_two_passes(data, more):
    times, x = data
    x = x + more.draw(st.sampled_from((0.0, 1e3, 65_000.0)))
    mean, deviation = moments(times, x)
    for i, window in enumerate(windows_of(times.tolist(), x.tolist(), H)):
        want_mean, want = naive.moments(window)
        if want_mean is None:
            assert math.isnan(mean[i])
        else:
            assert abs(mean[i] - want_mean) <= 1e-12 * math.fsum(map(abs, window)) / len(window)
        if want is None:
            assert math.isnan(deviation[i])
        else:
            # about a mean that is itself rounded; test_variance_of_a_small_variation_... is strict
            floor = 8 * len(window) * math.ulp(max(map(abs, window)))
            assert abs(deviation[i] ** 2 - want**2) <= 1e-9 * want**2 + floor * (want + floor)


@pytest.mark.parametrize(
    ("offset", "spread"),
    [
        (0.0, 1e-9),
        (1.0, 1e-3),
        (1e9, 1e5),
        (65_000.0, 0.01),
        (-1e6, 0.5),
        (1e9, 1.0),
    ],
)
def test_variance_of_a_small_variation_about_a_large_value(offset, spread):
    rng = np.random.default_rng(50)
    times = MIDNIGHT + np.sort(rng.integers(0, 20 * SECOND, 50))
    x = offset + spread * rng.standard_normal(50)
    _, deviation = moments(times, x)
    for i, window in enumerate(windows_of(times.tolist(), x.tolist(), H)[1:], 1):
        want = naive.moments(window)[1]
        assert want is None or abs(deviation[i] ** 2 / want**2 - 1) <= 1e-9


def test_variance_of_a_mid_that_moved_once():
    x = np.full(2000, 65_000.015)
    x[1000] += 0.005
    times = MIDNIGHT + np.arange(2000, dtype=np.int64) * SECOND // 50
    want = naive.moments(x.tolist())[1]
    assert abs(moments(times, x, width=64 * SECOND)[1, -1] ** 2 / want**2 - 1) <= 1e-9


def test_a_constant_has_no_deviation():
    times = MIDNIGHT + np.arange(0, 100, dtype=np.int64) * SECOND // 3
    mean, deviation = moments(times, np.full(100, 0.1))
    assert (mean == 0.1).all()
    assert (deviation[1:] == 0.0).all()


def test_moments_can_leave_the_mean_out():
    times, x = MIDNIGHT + np.arange(9, dtype=np.int64), np.arange(9.0)
    out = np.full((1, 9), -7.0)
    moment_window(times, x, x, x, 0, np.zeros(1, MOMENTS), H, np.array([0]), out)
    np.testing.assert_array_equal(out[0], moments(times, x)[1])


@pytest.mark.parametrize("means", [(1, 1), (1, 0, 1), (0, 1, 1), (0, 0)])
def test_moments_of_columns_together_are_those_of_each(means):
    times = MIDNIGHT + np.arange(60, dtype=np.int64) * SECOND // 3
    columns = [np.arange(60.0), np.sin(np.arange(60.0)), np.where(np.arange(60) % 3 == 0, np.nan, 4.0)]
    out = np.empty((len(means) + sum(means), 60))
    moment_window(times, *columns, 0, np.zeros(len(means), MOMENTS), H, np.array(means), out)
    each = [moments(times, x)[0 if mean else 1 :] for x, mean in zip(columns, means, strict=False)]
    np.testing.assert_array_equal(bits(out), bits(np.concatenate(each)))


@given(series_with_nulls(), st.data())
def test_older_rows_do_not_change_a_bit(data, more):
    """Any start, with no more history than the window: the same bits from there on."""
    times, x = data
    start = more.draw(st.integers(0, len(x) - 1))
    oldest = int(np.searchsorted(times, times[start] - H, side="right"))
    begin = more.draw(st.integers(0, oldest))
    for kind in (SUM, MEAN, ROOT_OF_SQUARES):
        whole = sums(times, x, kind)[:, start:]
        np.testing.assert_array_equal(bits(sums(times, x, kind, start)), bits(whole))
        np.testing.assert_array_equal(bits(sums(times[begin:], x[begin:], kind, start - begin)), bits(whole))
        np.testing.assert_array_equal(bits(sums(times[oldest:], x[oldest:], kind, start - oldest)), bits(whole))
    whole = moments(times, x)[:, start:]
    np.testing.assert_array_equal(bits(moments(times, x, start)), bits(whole))
    np.testing.assert_array_equal(bits(moments(times[begin:], x[begin:], start - begin)), bits(whole))
    np.testing.assert_array_equal(bits(moments(times[oldest:], x[oldest:], start - oldest)), bits(whole))


@given(series_with_nulls(), st.data())
def test_later_rows_do_not_change_a_bit(data, more):
    times, x = data
    end = more.draw(st.integers(1, len(x)))
    for kind in (SUM, MEAN, ROOT_OF_SQUARES):
        np.testing.assert_array_equal(bits(sums(times[:end], x[:end], kind)), bits(sums(times, x, kind)[:, :end]))
    np.testing.assert_array_equal(bits(moments(times[:end], x[:end])), bits(moments(times, x)[:, :end]))


@pytest.mark.parametrize("kind", [SUM, MEAN, ROOT_OF_SQUARES])
def test_a_huge_value_leaves_nothing_behind(kind):
    """What a running sum cannot do: 1e300 passes through the window, and the rest is exact again."""
    times = MIDNIGHT + np.arange(40, dtype=np.int64) * SECOND
    x = np.ones(40)
    with_huge = x.copy()
    with_huge[3] = 1e300
    np.testing.assert_array_equal(sums(times, with_huge, kind)[0, 11:], sums(times, x, kind)[0, 11:])
    np.testing.assert_array_equal(moments(times, with_huge)[:, 11:], moments(times, x)[:, 11:])


def test_blocks_divide_every_horizon():
    features = [e.feature.make() for e in tickstate.default_registry()]
    horizons = {h for f in features if "horizons" in f.params for h in f["horizons"]}
    assert {5, 15, 60, 300, 900} <= horizons
    assert all(h * SECOND % BLOCKS == 0 for h in horizons)


# ---- kernels of single columns


def regression(x, y, start=0, mask=None, min_cells=2):
    times = MIDNIGHT + np.arange(len(x), dtype=np.int64) * SECOND
    out, mask = np.empty((2, len(x) - start)), np.zeros(len(x)) if mask is None else np.array(mask)
    x, y, memory = np.array(x, float), np.array(y, float), np.zeros(303, cells.PAIRS)
    cells.cell_regression(times, x, y, mask, start, memory, 300 * SECOND, min_cells, out)
    return out.T.tolist()


def test_regression_by_hand():
    # at the last row the completed cells are (1, 2), (2, 4), (4, 9): means 7/3 and 5, sxy = 11, sxx = 14/3, syy = 26
    slope, share = regression([1, 2, 4, 0], [2, 4, 9, 0])[-1]
    assert slope == pytest.approx(33 / 14, rel=1e-14)
    assert share == pytest.approx(11**2 / (14 / 3 * 26), rel=1e-14)


def test_regression_is_null_where_a_variance_it_divides_by_is_zero():
    nan = math.nan
    np.testing.assert_array_equal(regression([3, 3, 3, 0], [1, 2, 3, 0])[-1], [nan, nan])
    np.testing.assert_array_equal(regression([1, 2, 3, 0], [5, 5, 5, 0])[-1], [0, nan])
    np.testing.assert_array_equal(regression([1, 2, 3, 0], [5, 5, 6, 0], min_cells=4)[-1], [nan, nan])
    np.testing.assert_array_equal(regression([1, 2, 3, 0], [5, 5, 6, 0], mask=[0, 0, 0, nan])[-1], [nan, nan])
    np.testing.assert_array_equal(regression([1, nan, nan, 0], [5, 5, 6, 0])[-1], [nan, nan])


@given(series_with_nulls(), st.integers(1, 5))
def test_ranks(data, min_rows):
    times, x = data
    x = np.round(x)  # many of the same
    out = np.empty((2, len(x)))
    regime.rank_in_window(times, x, 0, np.zeros(9, regime.RANKS), H, 0.0, min_rows, 0.2, 0.8, out)
    for i, window in enumerate(windows_of(times.tolist(), x.tolist(), H)):
        if math.isnan(x[i]) or len(window) < min_rows:
            assert np.isnan(out[:, i]).all()
            continue
        share = sum(v < x[i] for v in window) / len(window)
        assert out[0, i] == share
        assert out[1, i] == (regime.TIGHT if share <= 0.2 else regime.WIDE if share >= 0.8 else regime.NORMAL)


@given(st.lists(st.one_of(st.floats(-9, 9), st.just(math.nan)), max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_sums_of_groups(values, edges):
    edges = sorted(min(e, len(values)) for e in edges)
    carry, out = np.array([math.nan]), np.empty(len(edges))
    sample.sum_groups(np.array(values), np.array(edges, np.int64), carry, out)
    for got, (first, last) in zip([*out, carry[0]], pairwise([0, *edges, len(values)]), strict=True):
        group = [v for v in values[first:last] if not math.isnan(v)]
        assert (math.isnan(got) and not group) or got == pytest.approx(math.fsum(group), abs=1e-12 * 100)


def test_sums_of_groups_go_on_from_the_batch_before():
    carry, out = np.array([5.0]), np.empty(1)
    sample.sum_groups(np.array([1.0, math.nan, 2.0]), np.array([2], np.int64), carry, out)
    assert (out[0], carry[0]) == (6.0, 2.0)


# ---- columns


def table_of(seconds, **config):
    """Books at some seconds whose bid grows by one lot each row, so that ofi is 1 on each but the first."""
    rows = [
        snapshot(MIDNIGHT + round(s * SECOND), [(99.0, 1.0 + i)], [(101.0, 1.0)], nonce=i)
        for i, s in enumerate(seconds)
    ]
    return tickstate.compute(book_table(rows), config=config or None)


def test_window_sums_by_hand():
    table = table_of([0, 1, 5, 5, 6, 20, 21])
    assert table["ofi"].to_pylist() == [None, 1, 1, 1, 1, 1, 1]
    assert table["ofi_sum_5s"].to_pylist() == [None, 1, 2, 3, 3, 1, 2]  # at 6, the row of 1 is out
    assert table["ofi_sum_15s"].to_pylist() == [None, 1, 2, 3, 4, 2, 2]  # at 20, (5, 20]
    assert table["ofi_sum_900s"].to_pylist() == [None, 1, 2, 3, 4, 5, 6]
    assert table["mean_relative_spread_5s"].to_pylist() == [0.02] * 7
    assert table["rv_5s"].to_pylist() == [None] + [0.0] * 6


def test_windows_go_on_over_a_stale_gap():
    """Windows are not reset; they expire by time."""
    table = table_of([0, 1, 302.5, 303])
    assert table["ofi"].to_pylist() == [None, 1, None, 1]
    assert table["ofi_sum_900s"].to_pylist() == [None, 1, 1, 2]
    assert table["ofi_sum_300s"].to_pylist() == [None, 1, None, 1]
    assert table["book_history_s"].to_pylist() == [0, 1, 0, 0.5]


def test_horizons_are_a_parameter():
    table = table_of([0, 1, 2, 3], features={"ofi_sum": {"horizons": [1, 2]}})
    assert table["ofi_sum_1s"].to_pylist() == [None, 1, 1, 1]
    assert table["ofi_sum_2s"].to_pylist() == [None, 1, 2, 2]
    assert "ofi_sum_5s" not in table.column_names


def naive_book(rows, tape):
    return naive.orderbook(rows, tape, bucket_volume=3.0, vpin_window=4, min_buckets=2)


def assert_book_agrees(rows, tape):
    rows, lane = lakes.ordered(rows), lakes.Lane("orderbook", lakes.ordered(rows), tape)
    graph = lakes.graph_of("orderbook", params=lakes.VPIN)
    got = lakes.with_names(graph, lakes.run_engine(graph, lane))
    return lakes.assert_agrees(got, naive_book(rows, tape), lane)


@given(books(max_rows=16, max_levels=3), lakes.tapes())
def test_agrees_with_the_naive_reference(rows, tape):
    """Every column that the library makes of a book and the trades joined to it."""
    compared = assert_book_agrees(rows, tape)
    assert {"ofi_sum_900s", "mlofi_sum_5s", "rv_60s", "mean_relative_spread_300s"} <= set(compared)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_naive_reference_on_a_long_dense_book(seed):
    """Enough rows for what needs 30 of them, over midnight, with a quiet spell."""
    rng = np.random.default_rng(seed)
    rows = lakes.random_book(rng, 250, gap=1.0, levels=6)
    rows += lakes.random_book(rng, 150, start=rows[-1]["capture_ts"] + (280 + 15 * seed) * SECOND, gap=2.5, levels=6)
    tape = lakes.random_tape(rng, 200, start=rows[0]["capture_ts"] - 5 * SECOND, gap=1.5)
    assert_book_agrees(rows, tape)


def test_every_column_has_a_slow_reference():
    """Of FEATURES.md; what is of unbounded past stands beside it, and has tests of its own."""
    features = [f for f in lakes.features_of("orderbook").values() if not f.lookback().unbounded]
    made = {name for feature in features for name in feature.names}
    assert made <= set(naive.orderbook([], [])), made - set(naive.orderbook([], []))


CHANNELS = {
    "trades": (lakes.tapes(min_rows=1), naive_channels.trades, naive.trade_is_good),
    "ticker": (lakes.quotes(), naive_channels.ticker, naive_channels.quote_is_good),
}


@pytest.mark.parametrize("channel", CHANNELS)
@given(st.data())
def test_the_other_channels_agree_with_the_naive_reference(channel, data):
    rows_of, reference, is_good = CHANNELS[channel]
    graph = lakes.graph_of(channel)
    lane = lakes.Lane(channel, data.draw(rows_of))
    got = lakes.run_engine(graph, lane)
    compared = lakes.assert_agrees(got, reference(lane.rows), lane, np.array([is_good(row) for row in lane.rows]))
    assert set(compared) == set(graph.producers)


def test_flags_in_the_window_do_not_count():
    """A trade that is none (price or amount not finite and > 0) is in no window of its channel."""
    rows = [
        {"capture_ts": MIDNIGHT + i, "timestamp": 0, "side": "buy", "price": 10.0, "amount": amount}
        for i, amount in enumerate((1.0, None, 2.0, math.inf, 0.0, 4.0))
    ]
    got = lakes.run_engine(lakes.graph_of("trades"), lakes.Lane("trades", rows))
    np.testing.assert_array_equal(got["volume_60s"], [1, np.nan, 3, np.nan, np.nan, 7])
    np.testing.assert_array_equal(got["trade_count_60s"], [1, np.nan, 2, np.nan, np.nan, 3])


@given(books(max_rows=10, max_levels=2), lakes.tapes())
@settings(max_examples=10 if interpreted() else 40)
def test_compute_joins_trades(rows, tape):
    config = {"features": lakes.VPIN}
    table = tickstate.compute(book_table(rows), trades=lakes.bronze_table("trades", tape), config=config)
    rows, tape = lakes.ordered(rows), naive.drop_duplicates(naive.order(tape))
    lakes.assert_agrees(lakes.columns_of(table), naive_book(rows, tape), lakes.Lane("orderbook", rows, tape))


# ---- trades seen from a book, by hand


def joined(book_at, *trades, **run):
    """Columns of a still book at some seconds, with trades (seconds, side, amount)."""
    rows = [
        snapshot(MIDNIGHT + round(s * SECOND), [(99.0, 1.0)], [(101.0, 1.0)], nonce=i) for i, s in enumerate(book_at)
    ]
    tape = [
        {"capture_ts": MIDNIGHT + round(s * SECOND), "timestamp": i, "side": side, "price": 9.0, "amount": amount}
        for i, (s, side, amount) in enumerate(trades)
    ]
    table = tickstate.compute(book_table(rows), trades=lakes.bronze_table("trades", tape), config=run or None)
    return {name: table[name].to_pylist() for name in table.column_names}


def test_trades_of_the_rows_own_time_are_in_and_those_of_the_previous_are_not():
    got = joined(
        [0, 1, 2, 3], (0, "buy", 1.0), (1, "buy", 2.0), (1.5, "sell", 4.0), (2, None, 8.0), (2.000001, "buy", 16.0)
    )
    assert got["signed_trade_vol"] == [None, 2, -4, 16]
    assert got["trade_vol_5s"] == [1, 3, 15, 31]
    assert got["trade_count_5s"] == [1, 2, 4, 5]
    assert got["signed_vol_5s"] == [1, 3, -1, 15]
    assert got["tfi_5s"] == [1, 1, -1 / 7, 15 / 23]
    np.testing.assert_allclose(got["trade_age_s"], [0, 0, 0, 0.999999], rtol=1e-12)
    assert got["trade_history_s"] == [0, 1, 2, 3]


def test_a_trade_exactly_as_old_as_the_window_is_out():
    got = joined([0, 5, 5.000001], (0, "buy", 1.0), (0.000001, "sell", 2.0))
    assert got["trade_vol_5s"] == [1, 2, 0]
    assert got["tfi_5s"] == [1, -1, None]  # alive without a trade: 0 / 0


@pytest.mark.parametrize(("gap", "alive"), [(299, True), (300, True), (300.000001, False), (301, False)])
def test_trades_are_unknown_when_the_last_is_too_old(gap, alive):
    got = joined([1, gap - 1, gap], (0, "buy", 1.0))
    names = ("trade_age_s", "trade_history_s", "signed_trade_vol", "trade_vol_5s", "trade_count_900s", "signed_vol_60s")
    for name in names:
        assert (got[name][2] is not None) == alive, name
    if alive:
        assert [got[name][2] for name in names] == [gap, gap, 0, 0, 1, 0]


def test_before_the_first_trade_nothing_is_known():
    got = joined([0, 1, 2], (1.5, None, 1.0))
    assert got["trade_age_s"] == [None, None, 0.5]
    assert got["trade_vol_900s"] == [None, None, 1]
    assert got["signed_trade_vol"] == [None, None, 0]
    assert got["tfi_900s"] == [None] * 3  # no trade with a side


def test_trade_history_begins_anew_after_a_gap():
    got = joined(
        [0, 299, 300, 602, 603], (0, "buy", 1.0), (300, "buy", 1.0), (600.000001, "buy", 1.0), (603, "buy", 1.0)
    )
    np.testing.assert_allclose(got["trade_history_s"], [0, 299, 300, 1.999999, 2.999999], rtol=1e-9)


# ---- VPIN


def vpin_of(*trades, volume=3.0, day=0):
    """(vpin, vpin_buckets) of a book right after some (seconds, side, amount)."""
    tape = [
        {"capture_ts": MIDNIGHT + round(s * SECOND), "side": side, "price": 1.0, "amount": amount}
        for s, side, amount in trades
    ]
    rows = lakes.ordered([snapshot(tape[-1]["capture_ts"] + day, [(99.0, 1.0)], [(101.0, 1.0)])])
    params = {"vpin": {"bucket_volume": volume, "window": 4, "min_buckets": 2}}
    got = lakes.run_engine(lakes.graph_of("orderbook", "vpin", params=params), lakes.Lane("orderbook", rows, tape))
    want = naive.vpin(naive.full_buckets(tape, volume), rows[0]["capture_ts"], 4, 2)
    vpin, buckets = got["vpin"][0], got["vpin_buckets"][0]
    assert want["vpin_buckets"] == buckets
    assert math.isnan(vpin) if want["vpin"] is None else vpin == pytest.approx(want["vpin"], rel=1e-12)
    return (None if math.isnan(vpin) else pytest.approx(vpin, rel=1e-9)), buckets


def test_vpin_by_hand():
    assert vpin_of((1, "buy", 2.0)) == (None, 0)
    assert vpin_of((1, "buy", 2.0), (2, "sell", 1.0)) == (None, 1)  # fewer than min_buckets
    # buckets of 3: buy 2 sell 1, sell 3, and sell 1 in the open one
    assert vpin_of((1, "buy", 2.0), (2, "sell", 5.0)) == ((1 / 3 + 1) / 2, 2)
    # half of a trade without a side is bought, half is sold
    assert vpin_of((1, None, 3.0), (2, "buy", 3.0)) == ((0 + 1) / 2, 2)
    # one trade fills more buckets than the window holds
    assert vpin_of((1, "buy", 3.0), (2, None, 300.0)) == (0, 4)


def test_a_bucket_is_full_a_little_before_its_volume():
    assert vpin_of((1, "buy", 3.0 * (1 - 5e-10)), (2, "sell", 3.0)) == (1, 2)
    assert vpin_of((1, "buy", 3.0 * (1 - 5e-9)), (2, "sell", 3.0)) == (None, 1)
    assert vpin_of((1, "buy", 6.0 * (1 - 1e-15)), (2, "sell", 3.0)) == (1, 3)


def test_a_bucket_holds_what_is_in_it():
    assert vpin_of((1, "buy", 6.0 * (1 - 2e-10)), (2, "sell", 3.0)) == (1, 3)


def test_buckets_begin_empty_each_day_and_count_for_the_next():
    assert vpin_of((-2, "buy", 6.0), (-1, "buy", 2.0), (1, "buy", 1.0)) == (1, 2)  # 2 and 1 are not one bucket
    assert vpin_of((-2, "buy", 6.0), (1, "sell", 3.0)) == (1, 3)
    assert vpin_of((-86_402, "buy", 6.0), (1, "sell", 3.0)) == (None, 1)  # two days before


def test_vpin_is_null_without_a_bucket_volume():
    lane = lakes.small_lanes(10)["orderbook"]
    got = lakes.run_engine(lakes.graph_of("orderbook", "vpin", "trade_clock"), lane)
    assert np.isnan(got["vpin"]).all()
    assert np.isnan(got["vpin_buckets"]).all()
    assert not np.isnan(got["trade_age_s"]).all()
