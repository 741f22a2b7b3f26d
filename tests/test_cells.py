"""Cells of one second and the regressions on them (FEATURES.md 1 and 3.5): against brute force, and at their edges."""

import math

import lakes
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import MIDNIGHT, SECOND, assert_same_bits, book_table, snapshot

import tickstate
from tickstate.kernels import cells

pytestmark = pytest.mark.kernels

S = SECOND
H = 8 * S
_STEPS = (0, 0, 1, S - 1, S, S + 1, 4 * S, 7 * S, H - 1, H, H + 1, 3 * H)


@st.composite
def pairs(draw, values=None, min_rows=1, max_rows=30):
    """(times, x, y): times ascend and repeat, on the edges of seconds or not; some of x and y null."""
    n = draw(st.integers(min_rows, max_rows))
    steps = st.one_of(st.sampled_from(_STEPS), st.integers(0, 2 * S))
    start = draw(st.sampled_from((MIDNIGHT, MIDNIGHT - 1, MIDNIGHT + 1, 3 * S)))
    times = start + np.cumsum([draw(steps) for _ in range(n)]).astype(np.int64)
    values = values or st.one_of(st.sampled_from((0.0, 1.0, -1.0, 0.5, math.nan)), st.floats(-100, 100))
    x, y = (np.array([draw(values) for _ in range(n)]) for _ in range(2))
    return times, x, y


def nulls(values):
    """NaN as None."""
    return [None if math.isnan(v) else v for v in values]


def volatility(times, x, start=0, widths=(H,)):
    out = np.empty((len(widths), len(x) - start))
    cells.cell_volatility(
        times, x, start, np.zeros(widths[-1] // SECOND + 3, cells.CELLS), np.array(widths, np.int64), out
    )
    return out


def regression(times, x, y, start=0, width=H, min_cells=2, mask=None):
    out = np.empty((2, len(x) - start))
    mask = np.zeros(len(x)) if mask is None else mask
    cells.cell_regression(times, x, y, mask, start, np.zeros(width // SECOND + 3, cells.PAIRS), width, min_cells, out)
    return out


# ---- the grid


@given(pairs())
def test_volatility_is_that_of_completed_cells(data):
    times, x, _ = data
    grid, got = naive.cell_sums(times.tolist(), nulls(x)), volatility(times, x)[0]
    for t, found in zip(times.tolist(), got, strict=True):
        sums = naive.completed_cells(grid, t, H // S)
        want = math.sqrt(math.fsum(v * v for v in sums)) if sums else math.nan
        assert found == pytest.approx(want, rel=1e-12, abs=1e-12 * 3000, nan_ok=True)


@given(pairs(min_rows=2), st.data())
def test_volatility_from_the_lookback_on(data, more):
    """The rows of the window and one second before it are enough, and give the same bits."""
    times, x, _ = data
    start = more.draw(st.integers(0, len(x) - 1))
    begin = int(np.searchsorted(times, times[start] - H - S, side="right"))
    whole, part = volatility(times, x, start), volatility(times[begin:], x[begin:], start - begin)
    assert_same_bits({"": part[0]}, {"": whole[0]})


def test_a_cell_is_completed_when_the_next_second_begins():
    times = MIDNIGHT + np.array([0, S - 1, S, 2 * S - 1, 2 * S, H, H + S - 1, H + S, H + 2 * S], np.int64)
    x = np.array([1.0, 2.0, 4.0, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan])
    five = math.sqrt(9 + 16)
    assert volatility(times, x)[0][:-1] == pytest.approx(
        [math.nan, math.nan, 3.0, 3.0, five, five, five, 4.0], nan_ok=True
    )
    assert math.isnan(volatility(times, x)[0][-1])


def test_rows_of_a_second_cancel():
    """That is the point: a bounce within a second is no volatility, and 0 is a value."""
    times = MIDNIGHT + np.array([0, 1, S], np.int64)
    assert volatility(times, np.array([1e-4, -1e-4, 5.0]))[0][2] == 0.0


# ---- regressions


@given(pairs(max_rows=40), st.integers(2, 5), st.data())
def test_regression_agrees_with_two_passes(data, min_cells, more):
    """Slope and r2 over the cells where both are not null, at every row.

    Where the sums of x or y differ by rounding alone, of what was summed in a cell, the variance is 0 (`ZERO` in
    kernels/cells.py), while the reference asks for sums that are equal: within a million times that the two may differ.
    """
    times, x, y = data
    start = more.draw(st.integers(0, len(x) - 1))
    got = regression(times, x, y, start, min_cells=min_cells)
    grid = naive.impact_cells(times.tolist(), nulls(x), nulls(y))
    sizes = naive.impact_cells(times.tolist(), nulls(np.abs(x + 0 * y)), nulls(np.abs(y + 0 * x)))
    for i in range(start, len(x)):
        t = int(times[i])
        found = naive.completed_cells(grid, t, H // S)
        slope, r2 = naive.regression([a for a, _ in found], [b for _, b in found], min_cells)
        if len(found) >= min_cells and any(
            0 < max(c) - min(c) < 1e-6 * max(max(abs(v), s) for v, s in zip(c, size, strict=True))
            for c, size in zip(zip(*found, strict=True), zip(*naive.completed_cells(sizes, t, H // S), strict=True),
                               strict=True)
        ):  # fmt: skip
            continue
        here = got[:, i - start]
        scale = 0.0 if slope is None else abs(slope) / math.sqrt(r2) if r2 else math.inf
        assert math.isnan(here[0]) == (slope is None)
        assert math.isnan(here[1]) == (r2 is None)
        if slope is not None:
            assert here[0] == pytest.approx(slope, rel=1e-8, abs=1e-8 * scale if math.isfinite(scale) else 1e-6)
        if r2 is not None:
            assert here[1] == pytest.approx(r2, abs=1e-8)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-12, 1e-15, 1e-30, 1e-100, 1e8])
@pytest.mark.parametrize("lots", [1.0, 1e-8, 1e9])
def test_a_perfect_relation_is_one_at_any_scale(scale, lots):
    """r2 = 1 and the slope exact to 1e-9, however tiny the returns."""
    rng = np.random.default_rng(1)
    x = rng.integers(-50, 50, 60).astype(float)
    times = MIDNIGHT + np.arange(60) * S
    slope, r2 = regression(times, x * lots, x * scale * 3, width=300 * S, min_cells=30)
    assert np.isnan(slope[:30]).all()
    assert slope[30:] == pytest.approx(3 * scale / lots, rel=1e-9)
    assert r2[30:] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, -1e-12])
def test_a_constant_has_no_variance(value):
    """x constant: no slope; y constant: a slope of 0 and no r2. Also where cells sum it up differently."""
    rng = np.random.default_rng(2)
    other = rng.normal(size=90)
    times = MIDNIGHT + np.repeat(np.arange(30), 3) * S + np.tile([0, 1, 2], 30)
    same = np.tile([value, 2 * value, -value], 30)
    same[3:6] = same[3:6][::-1]
    same[6:9] = [-value, value, 2 * value]
    at = np.append(times, MIDNIGHT + 31 * S)
    same, other = np.append(same, 0.0), np.append(other, 0.0)
    slope, r2 = regression(at, same, other, width=300 * S, min_cells=30)
    assert math.isnan(slope[-1])
    assert math.isnan(r2[-1])
    slope, r2 = regression(at, other, same, width=300 * S, min_cells=30)
    assert slope[-1] == pytest.approx(0.0, abs=1e-15)
    assert math.isnan(r2[-1])


def test_a_variance_below_what_a_double_holds():
    """Not constant, and yet the squares are 0: no slope, no r2, no infinity."""
    times = MIDNIGHT + np.arange(9) * S
    tiny, x = np.arange(9) % 3 * 1e-200, np.arange(9) % 2 * 1.0
    assert np.isnan(regression(times, tiny, x)).all()
    slope, r2 = regression(times, x, tiny)
    assert not np.isnan(slope[2:]).any()
    assert np.isnan(r2).all()


def test_too_few_cells():
    times, x = MIDNIGHT + np.arange(40) * S, np.arange(40) % 7 * 1.0
    slope, _ = regression(times, x, x, width=300 * S, min_cells=30)
    assert np.isnan(slope[:30]).all()
    assert slope[30:] == pytest.approx(1.0)


def test_a_cell_counts_where_a_row_has_both():
    times = MIDNIGHT + np.array([0, 1, S, S + 1, 2 * S, 2 * S + 1, 3 * S], np.int64)
    x = np.array([1.0, 8.0, 2.0, math.nan, 4.0, 1.0, 0.0])
    y = np.array([1.0, math.nan, 2.0, 9.0, math.nan, math.nan, 0.0])
    slope, r2 = regression(times, x, y, min_cells=2)
    assert (slope[-1], r2[-1]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert np.isnan(regression(times, x, y, min_cells=3)).all()


def test_rows_of_a_second_see_the_same():
    rng = np.random.default_rng(3)
    times = MIDNIGHT + np.sort(rng.integers(0, 20 * S, 200))
    x, y = rng.normal(size=(2, 200))
    slope, _ = regression(times, x, y)
    for k in np.unique(times // S):
        here = lakes.bits(slope[times // S == k])
        assert len(np.unique(here)) == 1


def test_masked_rows_are_null():
    times, x = MIDNIGHT + np.arange(10) * S, np.arange(10.0) % 4
    mask = np.where(np.arange(10) % 2, 0.0, math.nan)
    whole, masked = regression(times, x, x), regression(times, x, x, mask=mask)
    assert np.isnan(masked[:, ::2]).all()
    assert_same_bits({"": masked[0, 1::2]}, {"": whole[0, 1::2]})


@given(pairs(min_rows=2), st.data())
def test_regression_from_the_lookback_on(data, more):
    times, x, y = data
    start = more.draw(st.integers(0, len(x) - 1))
    begin = int(np.searchsorted(times, times[start] - H - S, side="right"))
    whole, part = regression(times, x, y, start), regression(times[begin:], x[begin:], y[begin:], start - begin)
    assert_same_bits(dict(enumerate(part)), dict(enumerate(whole)))


# ---- through the library


def test_price_impact_of_a_book_that_moves_with_its_flow():
    """Every second the bid queue changes by q, and the mid by 1e-12 of it: r2 is 1, beta the ratio."""
    rng = np.random.default_rng(4)
    rows, size, bid, ask = [], 1e6, 99.0, 101.0
    for i in range(60):
        flow = float(rng.integers(-20, 21))
        size, ask = size + flow, ask + flow * 1e-10 * 2
        rows.append(snapshot(MIDNIGHT + i * S, [(bid, size)], [(ask, 1e-9)], nonce=i))
    config = {"features": {"ofi_beta": {"min_cells": 30}}}
    found = tickstate.compute(book_table(rows), ["ofi", "ofi_beta", "log_return"], config=config)
    # an ask that moves has e_ask of about its size, 1e-9: nothing beside the bid's
    assert found["ofi_beta"].to_pylist()[-1] == pytest.approx(1e-12, rel=1e-3)
    assert found["ofi_beta_r2"].to_pylist()[-1] == pytest.approx(1.0, abs=1e-5)
    assert found["ofi_beta"].null_count == 31  # the first row has no flow


@given(st.integers(0, 2**32))
@settings(max_examples=5)
def test_volatility_on_the_grid_agrees_over_long_books(seed):
    rng = np.random.default_rng(seed)
    rows = lakes.ordered(lakes.random_book(rng, 150, gap=float(rng.choice((0.1, 1.0, 20.0))), levels=1))
    config = {"features": {"rv_1s": {"horizons": [1, 2, 60, 900]}}}
    found = tickstate.compute(book_table(rows), ["rv_1s", "log_return"], config=config).to_pylist()
    times = [row["capture_ts"] for row in rows]
    grid = naive.cell_sums(times, [row["log_return"] for row in found])
    for t, row in zip(times, found, strict=True):
        for h in (1, 2, 60, 900):
            sums = naive.completed_cells(grid, t, h)
            got = row[f"rv_1s_{h}s"]
            if row["log_return"] is not None:
                assert got == (pytest.approx(math.sqrt(math.fsum(v * v for v in sums)), abs=1e-14) if sums else None)
