"""FEATURES.md 3.3 on small books: hand-computed values, and agreement with tests/naive.py."""

import math

import lakes
import naive
import numpy as np
import pytest
from hypothesis import given
from lakes import MIDNIGHT, SECOND, book_table, books, ln, snapshot

import tickstate
from tickstate.kernels import step

pytestmark = pytest.mark.kernels

BID, ASK = [(99.0, 3.0)], [(101.0, 2.0)]


def values_of(*snapshots, features=("flow", "keys"), **run):
    """Columns of the last of some snapshots, each (seconds, bids, asks)."""
    rows = [snapshot(MIDNIGHT + round(t * SECOND), bids, asks, nonce=i) for i, (t, bids, asks) in enumerate(snapshots)]
    config = {"run": run} if run else None
    return tickstate.compute(book_table(rows), [*features, "mid_price"], config=config).to_pylist()[-1]


def test_the_first_row_has_no_step():
    row = values_of((0, BID, ASK))
    step_columns = ["log_return", "mid_velocity", "mid_accel", "ofi", "mlofi", *(f"ofi_L{i}" for i in range(1, 10))]
    assert [row[name] for name in step_columns] == [None] * len(step_columns)
    assert row["book_history_s"] == 0.0


def test_returns_velocity_and_acceleration():
    at = [(0, [(99.0, 1.0)], [(101.0, 1.0)]), (2, [(101.0, 1.0)], [(103.0, 1.0)]), (3, [(104.0, 1.0)], [(106.0, 1.0)])]
    second, third = values_of(*at[:2]), values_of(*at)
    assert second["log_return"] == ln(102 / 100)
    assert second["mid_velocity"] == 1.0
    assert second["mid_accel"] is None  # the row before has no velocity
    assert third["mid_velocity"] == 3.0
    assert third["mid_accel"] == (3 - 1) / ((1 + 2) / 2)


def test_repeated_times_have_a_return_but_no_velocity():
    at = [(0, BID, ASK), (1, BID, ASK), (1, [(100.0, 1.0)], ASK), (2, BID, ASK), (3, BID, ASK)]
    row = values_of(*at[:3])
    assert row["log_return"] == ln(100.5 / 100)
    assert row["ofi"] == 1.0
    assert (row["mid_velocity"], row["mid_accel"]) == (None, None)
    row = values_of(*at[:4])
    assert row["mid_velocity"] == -0.5
    assert row["mid_accel"] is None  # the row before has no velocity
    assert values_of(*at)["mid_accel"] == 0.5


@pytest.mark.parametrize(
    ("bids", "asks", "expected"),
    [
        ([(99.5, 7.0)], [(101.0, 2.0)], 7),  # bid up: all of its size came
        ([(98.5, 7.0)], [(101.0, 2.0)], -3),  # bid down: the old size went
        ([(99.0, 7.0)], [(101.0, 2.0)], 4),
        ([(99.0, 3.0)], [(100.5, 5.0)], -5),  # ask down: supply came
        ([(99.0, 3.0)], [(101.5, 5.0)], 2),  # ask up: the old supply went
        ([(99.0, 3.0)], [(101.0, 5.0)], -3),
        ([(99.5, 7.0)], [(101.5, 5.0)], 9),
        ([(99.0, 3.0)], [(101.0, 2.0)], 0),
    ],
)
def test_ofi_sign(bids, asks, expected):
    row = values_of((0, BID, ASK), (1, bids, asks))
    assert row["ofi"] == expected
    assert row["mlofi"] == expected  # one level a side, weight 1
    assert math.copysign(1, row["ofi"]) == (1 if expected >= 0 else -1)  # no -0.0


def test_ofi_by_level_is_null_where_a_level_is_missing():
    one = [(99.0, 1.0), (98.0, 2.0), (97.0, 4.0)], [(101.0, 1.0), (102.0, 2.0)]
    two = [(99.0, 2.0), (98.5, 8.0)], [(101.0, 1.0), (102.0, 7.0), (103.0, 9.0)]
    row = values_of((0, *one), (1, *two))
    assert row["ofi"] == 1.0
    assert row["ofi_L1"] == 8 - (7 - 2)
    assert row["ofi_L2"] is None  # bid level 2 is gone, ask level 2 is new
    assert row["ofi_L9"] is None
    assert row["mlofi"] == pytest.approx((1 + 8 * math.exp(-0.5)) - 5 * math.exp(-0.5), rel=1e-15)


def test_mlofi_takes_each_side_by_itself():
    """A level that one side has in both snapshots counts, though ofi_L{i} is null for want of the other side."""
    one = [(99.0, 1.0), (98.0, 2.0)], [(101.0, 1.0)]
    two = [(99.0, 1.0), (98.0, 5.0)], [(101.0, 1.0)]
    row = values_of((0, *one), (1, *two))
    assert row["ofi_L1"] is None
    assert row["mlofi"] == pytest.approx(3 * math.exp(-0.5), rel=1e-15)


def test_mlofi_sees_ten_levels_and_the_depth():
    deep = [(99.0 - i, 1.0) for i in range(12)]
    more = [*deep[:9], (deep[9][0], 2.0), (deep[10][0], 100.0), deep[11]]
    row = values_of((0, deep, ASK), (1, more, ASK))
    assert row["mlofi"] == pytest.approx(math.exp(-4.5), rel=1e-15)
    row = values_of((0, deep, ASK), (1, more, ASK), depth=5)
    assert row["mlofi"] == 0.0
    assert row["ofi_L5"] is None


@pytest.mark.parametrize(("gap", "steps"), [(299, True), (300, True), (300.000001, False), (301, False)])
def test_staleness(gap, steps):
    row = values_of((0, BID, ASK), (gap, [(100.0, 3.0)], ASK))
    for name in ("log_return", "mid_velocity", "ofi", "mlofi"):
        assert (row[name] is not None) == steps, name
    assert row["book_history_s"] == (gap if steps else 0.0)
    assert row["ofi_sum_900s"] == (3.0 if steps else None)


@pytest.mark.parametrize(("gap", "steps"), [(1.5, True), (1.500001, False)])
def test_staleness_is_a_setting(gap, steps):
    row = values_of((0, BID, ASK), (gap, [(100.0, 3.0)], ASK), max_staleness=1.5)
    assert (row["ofi"] is not None) == steps


def test_a_stale_row_is_the_previous_of_the_next():
    row = values_of((0, BID, ASK), (1, BID, ASK), (400, BID, ASK), (402, [(100.0, 3.0)], ASK))
    assert row["ofi"] == 3.0
    assert row["mid_velocity"] == 0.25
    assert row["mid_accel"] is None  # the velocity of the row at 400 is unknown
    assert row["book_history_s"] == 2.0


def test_flagged_rows_between_are_no_previous():
    row = values_of((0, BID, ASK), (1, [], ASK), (2, [(102.0, 1.0)], ASK), (3, [(100.0, 5.0)], ASK))
    assert row["ofi"] == 5.0
    assert row["mid_velocity"] == pytest.approx(0.5 / 3, rel=1e-15)


def test_flagged_rows_do_not_keep_a_lane_alive():
    row = values_of((0, BID, ASK), (200, [], []), (301, BID, ASK))
    assert row["ofi"] is None
    assert row["book_history_s"] == 0.0


def test_history_stops_at_the_longest_window():
    at = [(250 * i, BID, ASK) for i in range(6)]
    assert [values_of(*at[: i + 1])["book_history_s"] for i in range(6)] == [0, 250, 500, 750, 900, 900]


def test_more_weights_than_levels():
    """A plugin may ask for more levels than `depth`: those are absent."""
    price, size = np.array([[10.0, 11.0]]), np.ones((1, 2))
    out = np.empty((4, 1))
    times, weights = np.array([0, 1], np.int64), np.ones(3)
    step.order_flow(times, price, size, price + 5, size, 1, 10, weights, out)
    assert out[0, 0] == out[3, 0] == 2.0
    assert np.isnan(out[1:3, 0]).all()


@given(books())
def test_agrees_with_the_naive_reference(rows):
    table = tickstate.compute(book_table(rows), ["mid_steps", "ofi", "keys"])
    rows = lakes.ordered(rows)
    compared = lakes.assert_agrees(lakes.columns_of(table), naive.orderbook(rows), lakes.Lane("orderbook", rows))
    assert {"mid_accel", "ofi_L9", "mlofi", "book_history_s"} <= set(compared)


@given(books())
def test_single_operations_are_exact(rows):
    """One logarithm, one quotient, one difference: the very bits of the formula as written."""
    table = tickstate.compute(book_table(rows), ["mid_steps", "ofi", "keys"])
    want = naive.orderbook(lakes.ordered(rows))
    for name in ("log_return", "mid_velocity", "ofi", "ofi_L1", "book_history_s"):
        assert table[name].to_pylist() == want[name], name
