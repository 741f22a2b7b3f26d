"""Ranks in a window, shares of time, returns over horizons (FEATURES.md 3.4, 3.5): against brute force."""

import math

import lakes
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakes import MIDNIGHT, SECOND, assert_same_bits, book_table, ln, snapshot

import tickstate
from tickstate.kernels import regime

pytestmark = pytest.mark.kernels

S = SECOND
H = 8 * S
NAN = math.nan
VALUES = st.one_of(
    st.sampled_from((0.5, 1.0, 1.0 + 1e-6, 1.0 + 1.1e-6, 1.0 - 1e-6, 1.0 + 1e-15, 2.0, 0.0, NAN)), st.floats(0, 10)
)


@st.composite
def series(draw, values=VALUES, min_rows=1, max_rows=40):
    """(times, values): times repeat, and fall on the edge of the window."""
    steps = st.one_of(st.sampled_from((0, 0, 1, S, 4 * S, H - 1, H, H + 1, 2 * H, 2 * H + 1)), st.integers(0, S))
    n = draw(st.integers(min_rows, max_rows))
    times = MIDNIGHT + np.cumsum([draw(steps) for _ in range(n)]).astype(np.int64)
    return times, np.array([draw(values) for _ in range(n)], float)


def begin_of(times, start, reach):
    return int(np.searchsorted(times, times[start] - reach, side="right"))


# ---- ranks


def ranks(times, x, start=0, width=H, slack=1e-6, min_rows=3, low=0.2, high=0.8):
    out = np.empty((2, len(x) - start))
    regime.rank_in_window(times, x, start, np.zeros(9, regime.RANKS), width, slack, min_rows, low, high, out)
    return out


def rank_by_brute_force(times, x, i, width, min_rows):
    here = [v for t, v in zip(times[: i + 1], x, strict=False) if t > times[i] - width and not math.isnan(v)]
    if len(here) < min_rows or math.isnan(x[i]):
        return NAN, NAN
    share = sum(v < x[i] * (1 - 1e-6) for v in here) / len(here)
    return share, regime.TIGHT if share <= 0.2 else regime.WIDE if share >= 0.8 else regime.NORMAL


@given(series(), st.integers(1, 6), st.data())
def test_ranks_are_exact(data, min_rows, more):
    times, x = data
    start = more.draw(st.integers(0, len(x) - 1))
    want = np.array([rank_by_brute_force(times, x, i, H, min_rows) for i in range(start, len(x))]).T
    np.testing.assert_array_equal(ranks(times, x, start, min_rows=min_rows), want)
    begin = begin_of(times, start, H)
    assert_same_bits(
        dict(enumerate(ranks(times[begin:], x[begin:], start - begin, min_rows=min_rows))),
        dict(enumerate(ranks(times, x, start, min_rows=min_rows))),
    )


def test_ranks_are_exact_over_many_rows():
    rng = np.random.default_rng(0)
    times = MIDNIGHT + np.cumsum(rng.integers(0, S // 4, 1500))
    x = np.round(rng.lognormal(0, 1, 1500), 1)
    x[rng.random(1500) < 0.05] = NAN
    want = np.array([rank_by_brute_force(times, x, i, H, 30) for i in range(1500)]).T
    assert np.isnan(want[0]).sum() < 300
    np.testing.assert_array_equal(ranks(times, x, min_rows=30), want)


def test_the_bounds_of_the_regimes_are_in_them():
    times = MIDNIGHT + np.arange(5)
    share, found = ranks(times, np.array([3.0, 4.0, 5.0, 1.0, 2.0]), min_rows=5)
    assert (share[4], found[4]) == (0.2, regime.TIGHT)
    share, found = ranks(times, np.array([3.0, 4.0, 1.0, 2.0, 5.0]), min_rows=5)
    assert (share[4], found[4]) == (0.8, regime.WIDE)
    share, found = ranks(times, np.array([3.0, 4.0, 1.0, 5.0, 2.5]), min_rows=5)
    assert (share[4], found[4]) == (0.2, regime.TIGHT)
    share, found = ranks(times, np.array([3.0, 4.0, 1.0, 5.0, 3.5]), min_rows=5)
    assert (share[4], found[4]) == (0.4, regime.NORMAL)


def test_rounding_of_a_tick_is_no_rank():
    """The same spread of one tick, from prices near 100: not smaller than itself."""
    spreads = [(9901 + i) * 0.01 - (9900 + i) * 0.01 for i in range(100)]
    assert len(set(spreads)) > 1
    share, found = ranks(MIDNIGHT + np.arange(100), np.array(spreads), min_rows=1)
    assert set(share) == {0.0}
    assert set(found) == {regime.TIGHT}


def test_of_equal_times_only_the_rows_so_far_are_in_the_window():
    times = np.full(4, MIDNIGHT)
    share, _ = ranks(times, np.array([1.0, 2.0, 3.0, 4.0]), min_rows=1)
    assert share.tolist() == [0, 1 / 2, 2 / 3, 3 / 4]


# ---- shares of time


def shares(times, codes, start=0, width=H, max_staleness=2 * H):
    out = np.empty((2, len(codes) - start))
    regime.regime_shares(times, codes, start, np.zeros(1, regime.SHARES), width, max_staleness, out)
    return out


def shares_by_brute_force(times, codes, i, width, max_staleness):
    spent = {regime.TIGHT: 0, regime.NORMAL: 0, regime.WIDE: 0}
    for j in range(i):
        since, until = max(int(times[j]), int(times[i]) - width), int(times[j + 1])
        if times[j + 1] - times[j] <= max_staleness and not math.isnan(codes[j]) and until > since:
            spent[int(codes[j])] += until - since
    total = sum(spent.values())
    return [spent[which] / total if total else NAN for which in (regime.TIGHT, regime.WIDE)]


CODES = st.sampled_from((0.0, 1.0, 2.0, NAN))


@given(series(CODES), st.sampled_from((H // 2, H - 1, H, 2 * H, 3 * H)), st.data())
def test_shares_are_exact(data, max_staleness, more):
    """In whole microseconds, and from the lookback on the same bits."""
    times, codes = data
    start = more.draw(st.integers(0, len(codes) - 1))
    want = np.array([shares_by_brute_force(times, codes, i, H, max_staleness) for i in range(start, len(codes))]).T
    got = shares(times, codes, start, max_staleness=max_staleness)
    np.testing.assert_array_equal(got, want)
    begin = begin_of(times, start, H + max_staleness + S)
    part = shares(times[begin:], codes[begin:], start - begin, max_staleness=max_staleness)
    assert_same_bits(dict(enumerate(part)), dict(enumerate(got)))


def test_shares_by_hand():
    times = MIDNIGHT + np.array([0, 1, 3, 6, 8, 11]) * S
    codes = np.array([0.0, 2.0, 1.0, 0.0, NAN, 1.0])
    tight, wide = shares(times, codes)
    assert math.isnan(tight[0])
    assert (tight[1], wide[1]) == (1.0, 0.0)
    assert (tight[2], wide[2]) == (1 / 3, 2 / 3)
    assert (tight[3], wide[3]) == (1 / 6, 2 / 6)
    assert (tight[4], wide[4]) == (3 / 8, 2 / 8)  # (0, 8]: 1 tight, 2 wide, 3 normal, 2 tight
    assert (tight[5], wide[5]) == (2 / 5, 0.0)  # (3, 11]: 3 normal, 2 tight; 3 unknown


@pytest.mark.parametrize(("step", "counts"), [(2 * H, True), (2 * H + 1, False)])
def test_a_stretch_longer_than_max_staleness_does_not_count(step, counts):
    times = MIDNIGHT + np.array([0, step], np.int64)
    tight, wide = shares(times, np.array([2.0, 0.0]))
    assert (wide[1] == 1.0) == counts
    assert math.isnan(wide[1]) != counts
    assert math.isnan(tight[1]) != counts


# ---- returns over horizons


def returns(times, mid, start=0, widths=(H,), max_staleness=2 * H):
    out = np.empty((len(widths), len(mid) - start))
    regime.horizon_returns(times, mid, start, np.zeros(1, regime.GAPS), np.array(widths, np.int64), max_staleness, out)
    return out


@given(series(st.floats(1, 2)), st.sampled_from((S, H - 1, H, 2 * H)), st.data())
def test_returns_over_a_horizon(data, max_staleness, more):
    times, mid = data
    start = more.draw(st.integers(0, len(mid) - 1))
    got = returns(times, mid, start, (S, H), max_staleness)
    listed = times.tolist()
    first = naive.first_since_gap(listed, max_staleness / S)
    for h, found in zip((S, H), got, strict=True):
        for i in range(start, len(mid)):
            before = [j for j in range(i) if times[j] <= times[i] - h]
            known = before and before[-1] >= first[i]
            want = math.log(mid[i] / mid[before[-1]]) if known else NAN
            assert found[i - start] == pytest.approx(want, rel=1e-15, nan_ok=True)
    begin = begin_of(times, start, H + max_staleness + S)
    part = returns(times[begin:], mid[begin:], start - begin, (S, H), max_staleness)
    assert_same_bits(dict(enumerate(part)), dict(enumerate(got)))


def test_returns_by_hand():
    times = MIDNIGHT + np.array([0, 0, 3, 5, 8, 8, 11]) * S
    mid = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    found = returns(times, mid)[0]
    assert np.isnan(found[:4]).all()
    assert found[4:].tolist() == [ln(8), ln(16), ln(16)]  # the last row at or before t - 8


@pytest.mark.parametrize(("gap", "known"), [(H, True), (H + 1, False)])
def test_a_gap_since_then_makes_it_unknown(gap, known):
    times = MIDNIGHT + np.array([0, S, S + gap, S + gap + H - 1, S + gap + H], np.int64)
    found = returns(times, np.array([1.0, 2.0, 4.0, 8.0, 16.0]), max_staleness=H)[0]
    assert (found[2] == ln(2)) == known  # t - 8 s is the second row, or a microsecond after it
    assert math.isnan(found[3]) != known
    assert found[4] == ln(4)  # the gap is before that row


# ---- through the library


def wide_book(spreads, every=1.0):
    """Snapshots of some spreads, one each `every` seconds."""
    rows = [
        snapshot(MIDNIGHT + round(i * every * S), [(100 - s / 2, 1.0)], [(100 + s / 2, 1.0)], nonce=i)
        for i, s in enumerate(spreads)
    ]
    return tickstate.compute(book_table(rows), ["spread_rank", "regime_shares"])


def test_the_regime_of_a_spread():
    found = wide_book([1.0] * 29 + [2.0] + [0.5] + [1.0] * 10)
    assert found["spread_percentile"].to_pylist()[:29] == [None] * 29
    assert found["spread_regime"].to_pylist()[28:32] == [None, "wide", "tight", "tight"]
    assert found["spread_percentile"].to_pylist()[29:32] == [29 / 30, 0.0, 1 / 32]
    tight, wide = (found[f"spread_regime_{name}_frac"].to_pylist() for name in ("tight", "wide"))
    assert tight[:30] == wide[:30] == [None] * 30
    assert (tight[30], wide[30]) == (0.0, 1.0)
    assert (tight[31], wide[31]) == (0.5, 0.5)


def test_normal_is_between():
    found = wide_book([0.5] * 20 + [1.0] * 20 + [0.7, 2.0])
    assert found["spread_regime"].to_pylist()[-2:] == ["normal", "wide"]
    assert found["spread_percentile"].to_pylist()[-2] == 20 / 41


def test_sparse_rows_have_no_rank():
    found = wide_book([1.0, 2.0] * 30, every=20.0)
    assert found["spread_percentile"].null_count == 60
    assert found["spread_regime"].null_count == 60


@given(st.integers(0, 2**32), st.sampled_from((0.2, 5.0, 12.0)))
def test_ranks_and_shares_of_books(seed, gap):
    """With few rows asked for, against brute force over the library's own spreads."""
    rng = np.random.default_rng(seed)
    rows = lakes.ordered(lakes.random_book(rng, 80, gap=gap, levels=1, flagged=0.05))
    config = {"features": {"spread_rank": {"min_rows": 4, "window": 60}, "regime_shares": {"window": 60}}}
    found = tickstate.compute(book_table(rows), ["spread_rank", "regime_shares", "spread"], config=config).to_pylist()
    valid = [i for i, row in enumerate(found) if row["spread"] is not None]
    times = np.array([rows[i]["capture_ts"] for i in valid])
    spread = np.array([found[i]["spread"] for i in valid])
    codes = []
    for n, i in enumerate(valid):
        share, code = rank_by_brute_force(times, spread, n, 60 * S, 4)
        codes.append(code)
        assert found[i]["spread_percentile"] == (None if math.isnan(share) else share)
        assert found[i]["spread_regime"] == (None if math.isnan(code) else ("tight", "normal", "wide")[int(code)])
        both = shares_by_brute_force(times, codes, n, 60 * S, 300 * S)
        got = [found[i][f"spread_regime_{name}_frac"] for name in ("tight", "wide")]
        assert got == [None if math.isnan(v) else v for v in both]
