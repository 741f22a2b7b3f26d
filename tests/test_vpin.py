"""VPIN (FEATURES.md 3.5): the bucket rule, the two days, what a huge trade costs."""

import math
from fractions import Fraction

import lakes
import naive
import numpy as np
import pytest
import tapes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lakes import MIDNIGHT, SECOND, book_table
from tapes import touch, trade

import tickstate
from tickstate.kernels import trades as kernels

pytestmark = pytest.mark.kernels

S = SECOND
DAY = 86_400 * S


def vpin(tape, at, volume=10.0, window=4, min_buckets=1, max_gap=300.0):
    """(vpin, vpin_buckets) at some times (us) after midnight, of trades `(us, amount, side)`."""
    book = book_table([touch(MIDNIGHT + t, nonce=i) for i, t in enumerate(at)])
    table = lakes.bronze_table("trades", [trade(MIDNIGHT + t, *others) for t, *others in tape])
    params = {"bucket_volume": volume, "window": window, "min_buckets": min_buckets}
    config = {"features": {"vpin": params}, "lanes": {"demo/A-B": {"trades_max_gap": max_gap}}}
    found = tickstate.compute(book, "vpin", trades=table, config=config)
    return list(zip(found["vpin"].to_pylist(), found["vpin_buckets"].to_pylist(), strict=True))


def after(*tape, **options):
    """The same a second after midnight, trades `(amount, side)` at midnight."""
    return vpin([(0, *one) for one in tape], [S], **options)[0]


# ---- buckets


@pytest.mark.parametrize(
    ("tape", "expected"),
    [
        ([(9.0, "buy")], (None, 0)),
        ([(10.0, "buy")], (1.0, 1)),
        ([(5.0, "buy"), (5.0, "sell")], (0.0, 1)),
        ([(7.0, "buy"), (3.0, "sell")], (0.4, 1)),
        ([(7.0, "buy"), (13.0, "sell")], (0.7, 2)),  # split: 7 buy + 3 sell, then 10 sell
        ([(7.0, "buy"), (5.0, "sell"), (8.0, "buy")], (0.5, 2)),  # 7 - 3; then 2 sell, 8 buy: (0.4 + 0.6) / 2
        ([(10.0, None)], (0.0, 1)),
        ([(6.0, "sell"), (4.0, None)], (0.6, 1)),
        ([(60.0, "buy")], (1.0, 4)),  # the window holds 4
        ([(60.0, "buy"), (5.0, "buy"), (5.0, "sell")], (0.75, 4)),
        ([(5.0, "buy"), (60.0, None), (5.0, "buy")], (0.125, 4)),  # 5 left open, without a side: 5 of 10 buy
    ],
)
def test_buckets_by_hand(tape, expected):
    found = after(*tape)
    assert found[1] == expected[1]
    assert found[0] == (None if expected[0] is None else pytest.approx(expected[0], abs=1e-14))


@pytest.mark.parametrize(
    ("amount", "full"), [(10 * (1 - 1.01e-9), 0), (10 * (1 - 1e-9), 1), (10 * (1 - 0.99e-9), 1), (10.0, 1)]
)
def test_a_bucket_is_full_at_all_but_a_billionth(amount, full):
    assert after((amount, "buy"))[1] == full
    rest = 10.0 - 3.0 - (10.0 - amount)
    assert after((3.0, "buy"), (rest, "buy"))[1] == full
    assert after((amount, "buy"), (10.0, "sell"))[1] == full + 1


def test_a_bucket_closed_below_its_volume_leaves_no_debt():
    """The next one begins with the next trade, empty."""
    tape = [(10 * (1 - 0.5e-9), "buy"), (10.0, "sell")]
    assert after(*tape)[1] == 2
    assert after(*tape, (5.0, "buy"), (5.0, "sell"))[0] == pytest.approx(2 / 3, abs=1e-9)


@pytest.mark.parametrize("buckets", [1, 3, 4])
def test_below_min_buckets_it_is_null_and_the_number_is_not(buckets):
    found = after((10.0 * buckets, "buy"), min_buckets=4)
    assert found == (1.0 if buckets == 4 else None, buckets)


def test_the_rest_of_a_huge_trade_that_fills_a_bucket_is_what_it_holds():
    """A trade in one, or in two parts at a bucket's edge: the same to 1e-12."""
    almost = 10 * (1 - 0.5e-9)
    one, two = after((10 + almost, "buy")), after((10.0, "buy"), (almost, "buy"))
    assert one[1] == two[1] == 2
    assert one[0] == pytest.approx(two[0], abs=1e-12)


# ---- what it is


@given(st.lists(tapes.AMOUNTS, min_size=1, max_size=15), st.sampled_from(("buy", "sell")))
def test_1_on_a_one_sided_tape(amounts, side):
    found, buckets = after(*((a, side) for a in amounts), volume=0.7)
    assert buckets == min(4, len(naive.full_buckets([trade(MIDNIGHT, a, side) for a in amounts], 0.7)))
    assert found == (pytest.approx(1.0, abs=1.01e-9) if buckets else None)


one_trade = st.tuples(tapes.AMOUNTS, st.sampled_from(("buy", "sell", None)))


@given(st.lists(one_trade, min_size=1, max_size=12), st.data())
def test_a_trade_in_two_parts_changes_nothing(tape, data):
    """To 1e-12, unless the parts' rounding decides whether a bucket is full."""
    at = data.draw(st.integers(0, len(tape) - 1))
    share = data.draw(st.floats(0.01, 0.99))
    amount, side = tape[at]
    split = [*tape[:at], (amount * share, side), (amount - amount * share, side), *tape[at + 1 :]]
    whole, parts = after(*tape, volume=1.7), after(*split, volume=1.7)
    assert whole[1] == parts[1]
    assert whole[0] == (None if parts[0] is None else pytest.approx(parts[0], abs=1e-12))


@given(st.lists(one_trade, min_size=1, max_size=12))
def test_buys_and_sells_are_alike(tape):
    swapped = [(a, {"buy": "sell", "sell": "buy"}.get(side)) for a, side in tape]
    assert after(*tape, volume=1.7) == after(*swapped, volume=1.7)


@given(
    st.lists(
        st.tuples(st.integers(-DAY - S, DAY + S), st.one_of(tapes.AMOUNTS, st.floats(50, 5000)), one_trade), max_size=12
    ),
    st.sampled_from((0.9, 3.0, 12.5)),
)
@settings(max_examples=60)
def test_agrees_with_exact_fractions(found, volume):
    """Over three days, with a lane whose trades stay alive so long."""
    tape = sorted(((t, a, side) for t, a, (_, side) in found), key=lambda one: one[0])
    at = sorted({*(t for t, *_ in tape), *(t + S for t, *_ in tape), 0, DAY - 1, DAY})
    got = vpin(tape, at, volume, window=5, min_buckets=2, max_gap=3.0 * 86_400)
    buckets = naive.full_buckets([trade(MIDNIGHT + t, a, side) for t, a, side in tape], volume)
    for t, (value, n) in zip(at, got, strict=True):
        if not tape or t < tape[0][0]:
            assert (value, n) == (None, None)
            continue
        want = naive.vpin(buckets, MIDNIGHT + t, 5, 2)
        assert n == want["vpin_buckets"]
        assert value == (None if want["vpin"] is None else pytest.approx(want["vpin"], abs=1e-12))


# ---- days


def test_a_bucket_begins_empty_at_midnight():
    assert vpin([(-S, 6.0, "buy"), (S, 6.0, "buy")], [2 * S]) == [(None, 0)]
    assert vpin([(-S, 6.0, "buy"), (-1, 6.0, "buy")], [0]) == [(1.0, 1)]
    assert vpin([(-S, 6.0, "buy"), (0, 6.0, "buy")], [0]) == [(None, 0)]  # midnight itself is the new day
    assert vpin([(-S, 16.0, "buy"), (0, 10.0, "sell"), (1, 4.0, "sell")], [S], window=2) == [(1.0, 2)]


@pytest.mark.parametrize(("day", "seen"), [(0, 1), (1, 1), (2, 0), (3, 0)])
def test_the_day_before_counts_and_two_days_before_do_not(day, seen):
    """Also where there has been no trade since."""
    at = [max(12 * 3600 * S, day * DAY), day * DAY + DAY - 1]
    found = vpin([(12 * 3600 * S, 10.0, "buy")], at, max_gap=1e6)
    assert found == [((1.0, 1) if seen else (None, 0))] * 2


def test_the_day_before_counts_once_trades_of_today_have_come():
    tape = [(-2 * DAY, 10.0, "buy"), (-DAY, 10.0, None), (0, 10.0, "sell"), (DAY, 0.1, "buy")]
    found = vpin(tape, [t for t, *_ in tape], max_gap=1e6)
    assert found == [(1.0, 1), (0.5, 2), (0.5, 2), (1.0, 1)]


def test_a_day_without_trades_between():
    tape = [(0, 10.0, "buy"), (2 * DAY, 10.0, None)]
    assert vpin(tape, [2 * DAY - 1, 2 * DAY], max_gap=1e6) == [(1.0, 1), (0.0, 1)]


def test_null_where_trades_are_not_alive():
    found = vpin([(0, 50.0, "buy"), (900 * S, 1.0, "buy")], [300 * S, 300 * S + 1, 899 * S, 900 * S])
    assert found == [(1.0, 4), (None, None), (None, None), (1.0, 4)]


# ---- a trade of any size


@pytest.mark.parametrize("buckets", [1e6, 1e9, 1e12, 1e15])
def test_a_trade_of_very_many_buckets_returns(buckets):
    """A step a bucket would not: the largest of these would take weeks."""
    assert after((buckets, "buy"), (0.5, "sell"), volume=1.0) == (1.0, 4)


@pytest.mark.parametrize("buckets", [1e18, 9.3e18, 1e19, 1e25, 1e300])
def test_a_trade_of_more_buckets_than_an_integer_holds(buckets):
    """And the next trades are as if it were one of many buckets."""
    assert after((3.0, "buy"), (buckets, "buy"), volume=1.0) == (1.0, 4)
    found = after((3.0, "buy"), (buckets, "buy"), (40.0, None), volume=1.0, window=4)
    assert found == (0.0, 4)


def test_the_steps_of_a_trade_are_bounded_by_the_window():
    """Counted: what is written into the ring, as it is written."""

    class Ring(np.ndarray):
        writes = 0

        def __setitem__(self, key, value):
            Ring.writes += 1
            super().__setitem__(key, value)

    state = np.zeros(1, kernels.VPIN_STATE)
    ring = np.zeros(8).view(Ring)
    push = kernels.push_buckets.function
    helpers = {"push_buckets": push, "math": math, "np": np, "abs": abs}
    fill = type(push)(kernels.fill_buckets.function.__code__, helpers)
    counts = []
    for buckets in (1, 3, 8, 1000, 10**6, 10**12):
        Ring.writes = 0
        fill(ring, state[0], float(buckets), 1.0, 1.0)
        counts.append(Ring.writes)
    assert max(counts) <= 2 * 8  # top up the open bucket, then whole ones: each moves the ring at most once
    assert state[0]["today"] == 8


def test_the_ring_after_a_trade_of_a_million_buckets_is_that_of_small_ones():
    """A million buckets at once, and bucket by bucket."""
    many = vpin([(0, 3.0, "sell"), (1, 1e6, "buy"), (2, 7.0, "sell")], [S], window=50)
    few = vpin([(0, 3.0, "sell"), *[(1, 10.0, "buy")] * 60, (2, 7.0, "sell")], [S], window=50)
    assert many[0][1] == few[0][1] == 50
    assert many[0][0] == pytest.approx(few[0][0], abs=1e-12)


def test_what_a_trade_of_a_million_buckets_leaves_open():
    """The open bucket is exact to 1e-12, however many there were before."""
    tape = [(0.3, "sell"), (1e6 + 0.1, "buy"), (0.9, "sell")]
    few = [tape[0], (Fraction(1e6 + 0.1) - 999_990, "buy"), tape[2]]
    full = naive.full_buckets([trade(MIDNIGHT, *one) for one in few], 1.0)
    want = float(sum(share for _, share in full[-2:]) / 2)
    assert 0.1 < want < 0.9
    assert after(*tape, volume=1.0, window=2)[0] == pytest.approx(want, abs=1e-12)


# ---- not set


def test_null_without_a_bucket_volume():
    assert after((1000.0, "buy"), volume=0.0) == (None, None)


@example([(0, 1e-300, "buy")])
@given(st.lists(st.tuples(st.just(0), st.sampled_from((1e-300, 1.0, 1e300)), st.just("buy")), max_size=4))
def test_volumes_far_from_the_trades(tape):
    for volume in (1e-300, 1.0, 1e300):
        for value, n in vpin(tape, [S], volume):
            assert value is None or 0 <= value <= 1 + 1e-9
            assert n is None or 0 <= n <= 4


class Heard:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.texts = []

    def __getattr__(self, name):
        return lambda *_: None

    def noticed(self, text):
        self.texts.append(text)


def test_a_run_says_once_where_it_is_not_set(tmp_path):
    symbols = ("A-B", "C-D", "E-F")
    rows = [touch(MIDNIGHT + i * lakes.HOUR // 2) for i in range(4)]
    tapes.write(tmp_path, {("orderbook", s): rows for s in symbols} | {("trades", "A-B"): [trade(MIDNIGHT)]})
    heard = Heard()
    tapes.run(tmp_path, observer=heard)
    assert len(heard.texts) == 1
    assert all(f"demo/{s}" in heard.texts[0] for s in symbols)
    assert "bucket_volume" in heard.texts[0]
    assert {row["vpin"] for row in tapes.read(tmp_path / "silver")} == {None}
    heard = Heard()
    tapes.run(tmp_path, observer=heard)
    assert heard.texts == []  # nothing is computed
    heard = Heard()
    config = {"features": {"vpin": {"bucket_volume": {"demo/A-B": 1.0, "demo/C-D": 1.0}}}}
    tapes.run(tmp_path, observer=heard, config=config)
    assert len(heard.texts) == 1 if heard.texts else True
    assert not any("A-B" in text or "C-D" in text for text in heard.texts)
    heard = Heard()
    tapes.run(tmp_path, tmp_path / "other", observer=heard, config=config)
    assert len(heard.texts) == 1
    assert "demo/E-F" in heard.texts[0]
    assert "demo/A-B" not in heard.texts[0]
    heard = Heard()
    tapes.run(tmp_path, tmp_path / "third", observer=heard, features="mid_price")
    assert heard.texts == []
