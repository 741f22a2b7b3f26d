"""FEATURES.md 3.1 and 3.2 on small books: hand-computed values, and agreement with tests/naive.py."""

import math
from itertools import pairwise

import lakes
import naive
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import MIDNIGHT, book_table, books, snapshot

import tickstate
from tickstate.features.base import Settings
from tickstate.features.checking_data import make_lane, run_lane
from tickstate.features.graph import build_graph
from tickstate.features.structure import WHOLE
from tickstate.kernels import book
from tickstate.kernels._jit import interpreted
from tickstate.kernels.book import FAULT_ORDER, FAULT_VALUE, FLAGS
from tickstate.lake.book import book_rows

pytestmark = pytest.mark.kernels


def values_of(bids, asks, *features, **run):
    """The columns of one snapshot, by name."""
    config = {"run": run} if run else None
    return tickstate.compute(book_table([snapshot(MIDNIGHT, bids, asks)]), features or None, config=config).to_pylist()[
        0
    ]


def test_top_of_book():
    row = values_of([(99.0, 3.0), (98.0, 5.0)], [(101.0, 1.0)], "top_of_book")
    assert row["mid_price"] == 100.0
    assert row["spread"] == 2.0
    assert row["relative_spread"] == 0.02
    assert row["weighted_mid"] == (3 * 101 + 1 * 99) / 4 == 100.5
    assert row["weighted_mid_minus_mid"] == 0.5


def test_depth_imbalance_takes_the_levels_there_are():
    row = values_of([(99.0, 3.0), (98.0, 1.0), (97.0, 4.0)], [(101.0, 1.0), (102.0, 1.0)], "depth_imbalance")
    assert row["depth_imbalance_1"] == (3 - 1) / (3 + 1)
    assert row["depth_imbalance_3"] == (8 - 2) / (8 + 2) == row["depth_imbalance_10"] == row["total_imbalance"]
    assert (row["total_bid_depth"], row["total_ask_depth"]) == (8.0, 2.0)


def test_bands():
    # mid 10000, so that a distance of 1 in price is 1 bps
    bids = [(9999.0, 1.0), (9998.5, 2.0), (9995.0, 4.0), (9994.0, 8.0)]
    asks = [(10001.0, 16.0), (10002.0, 32.0)]
    row = values_of(bids, asks, "depth_bands")
    assert (row["bid_reach_bps"], row["ask_reach_bps"]) == (6.0, 2.0)
    assert (row["bid_vol_band_0_1bps"], row["ask_vol_band_0_1bps"]) == (1.0, 16.0)  # d = 1 is in
    assert (row["bid_vol_band_1_2bps"], row["ask_vol_band_1_2bps"]) == (2.0, 32.0)
    assert row["bid_vol_band_2_5bps"] == 4.0  # d = 5 is in
    assert row["ask_vol_band_2_5bps"] is None  # reach 2 <= 2: not seen
    assert row["bid_vol_band_5_10bps"] == 8.0  # a lower bound: reach 6
    assert row["bid_vol_band_10_25bps"] is None
    assert row["imb_band_1_2bps"] == (2 - 32) / 34
    assert row["imb_band_2_5bps"] is None
    assert row["depth_5bps"] == 1 + 2 + 4 + 16 + 32


def test_a_band_that_is_reached_over_but_empty_is_zero():
    row = values_of([(9999.0, 1.0), (9980.0, 2.0)], [(10001.0, 1.0), (10030.0, 2.0)], "depth_bands")
    assert row["bid_vol_band_1_2bps"] == row["ask_vol_band_5_10bps"] == 0.0
    assert row["imb_band_1_2bps"] is None  # 0 / 0
    assert row["imb_band_10_25bps"] == 1.0
    assert row["ask_vol_band_10_25bps"] == 0.0


def test_a_touch_at_the_mid_itself_is_in_the_first_band():
    """Two neighbouring doubles: m rounds to one of them and d = 0 there. If nothing lies deeper, reach is 0 <= 0."""
    low = 100.0
    high = math.nextafter(low, 200.0)
    assert (low + high) / 2 == low
    row = values_of([(low, 1.0)], [(high, 1.0)], "depth_bands")
    assert row["bid_reach_bps"] == 0.0
    assert row["bid_vol_band_0_1bps"] is None
    row = values_of([(low, 1.0), (99.0, 2.0)], [(high, 1.0)], "depth_bands")
    assert row["bid_vol_band_0_1bps"] == 1.0
    assert row["depth_5bps"] == 2.0


def bands_at(*edges):
    config = {"features": {"depth_bands": {"edges": list(edges)}}}
    bids, asks = [(9999.0, 1.0), (9996.0, 2.0)], [(10001.0, 4.0), (10004.0, 8.0), (10010.0, 16.0)]
    return tickstate.compute(book_table([snapshot(MIDNIGHT, bids, asks)]), "depth_bands", config=config).to_pylist()[0]


def test_bands_follow_their_parameter():
    row = bands_at(0, 3, 7)
    assert (row["bid_vol_band_0_3bps"], row["bid_vol_band_3_7bps"]) == (1.0, 2.0)
    assert (row["ask_vol_band_0_3bps"], row["ask_vol_band_3_7bps"]) == (4.0, 8.0)
    assert row["imb_band_3_7bps"] == (2 - 8) / 10
    assert "bid_vol_band_0_1bps" not in row


def test_bands_may_begin_away_from_the_mid():
    row = bands_at(3, 7)
    assert (row["bid_vol_band_3_7bps"], row["ask_vol_band_3_7bps"]) == (2.0, 8.0)


def test_vwap():
    bids = [(10.0 - i, float(i + 1)) for i in range(6)]  # prices 10..5, sizes 1..6: the sixth is not used
    row = values_of(bids, [(11.0, 2.0), (13.0, 2.0)], "book_vwap")
    assert row["vwap_bid_5"] == (10 * 1 + 9 * 2 + 8 * 3 + 7 * 4 + 6 * 5) / 15
    assert row["vwap_ask_5"] == 12.0
    assert row["vwap_spread"] == pytest.approx(12 - 110 / 15, abs=1e-14)


def test_smart_depth():
    row = values_of([(9998.0, 3.0)], [(10002.0, 1.0), (10004.0, 5.0)], "smart_depth")
    assert row["smart_bid_depth"] == pytest.approx(3 * math.exp(-1), rel=1e-15)
    assert row["smart_ask_depth"] == pytest.approx(math.exp(-1) + 5 * math.exp(-2), rel=1e-15)
    bid, ask = row["smart_bid_depth"], row["smart_ask_depth"]
    assert row["smart_depth_imbalance"] == (bid - ask) / (bid + ask)


def test_smart_depth_underflows_to_no_imbalance():
    row = values_of([(1.0, 3.0)], [(9.0, 1.0)], "smart_depth")  # d = 8000 bps
    assert (row["smart_bid_depth"], row["smart_ask_depth"], row["smart_depth_imbalance"]) == (0.0, 0.0, None)


def test_slopes():
    # d = 1, 2, 4 and cumulative sizes 1, 3, 6: mean 7/3 and 10/3, sxy = 23/3, sxx = 14/3
    bids = [(9999.0, 1.0), (9998.0, 2.0), (9996.0, 3.0)]
    asks = [(10001.0 + i, 2.0) for i in range(5)]
    row = values_of(bids, asks, "book_slope")
    assert row["bid_slope_regression"] == pytest.approx(23 / 14, rel=1e-13)
    assert row["ask_slope_regression"] == pytest.approx(2.0, rel=1e-13)
    assert row["ask_slope_simple"] == 4 / 10
    assert row["bid_slope_simple"] is None  # fewer than 5 levels


@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("side", ["bid", "ask"])
def test_null_rules_by_the_number_of_levels(side, n):
    counts = {"bid": 6, "ask": 6} | {side: n}
    bids = [(99.0 - i, 1.0 + i) for i in range(counts["bid"])]
    asks = [(101.0 + i, 2.0) for i in range(counts["ask"])]
    row = values_of(bids, asks)
    other = "ask" if side == "bid" else "bid"
    assert (row[f"{side}_slope_simple"] is None) == (n < 5)
    assert (row[f"{side}_depth_decay_5"] is None) == (row["avg_depth_decay_5"] is None) == (n < 5)
    assert (row[f"{side}_slope_regression"] is None) == (n < 3)
    assert None not in [row[f"{other}_{name}"] for name in ("slope_simple", "slope_regression", "depth_decay_5")]


def test_center_of_gravity():
    row = values_of([(99.0, 1.0)], [(101.0, 3.0)], "center_of_gravity")
    assert row["center_of_gravity"] == 100.5
    assert row["cog_vs_mid"] == pytest.approx(50.0, abs=1e-9)


def test_shape():
    bids = [(99.0 - i, s) for i, s in enumerate((4.0, 1.0, 1.0, 1.0, 1.0, 8.0))]
    row = values_of(bids, [(101.0, 1.0), (102.0, 3.0)], "book_shape")
    assert row["bid_depth_decay_5"] == 0.25
    assert row["ask_depth_decay_5"] is None
    assert row["avg_depth_decay_5"] is None
    assert row["bid_concentration"] == (16 + 1 + 1 + 1 + 1 + 64) / 256
    assert row["ask_concentration"] == (1 + 9) / 16
    assert row["spread_per_depth_3"] == 2 / (6 + 4)
    assert row["spread_per_depth_6"] == 2 / (16 + 4)


def test_depth_limits_what_is_seen():
    bids = [(99.0 - i, 1.0) for i in range(25)]
    row = values_of(bids, [(101.0, 1.0)], "total_bid_depth", "bid_reach_bps", "levels")
    assert row["total_bid_depth"] == 20.0
    assert row["bid_reach_bps"] == 2000.0
    assert row["bid_price_L19"] == 80.0
    assert "bid_price_L20" not in row
    row = values_of(bids, [(101.0, 1.0)], "total_bid_depth", "levels", depth=2)
    assert (row["total_bid_depth"], row["bid_price_L1"]) == (2.0, 98.0)
    assert "bid_price_L2" not in row


def test_levels_of_size_zero_are_no_levels():
    with_zeros = values_of([(99.5, 0.0), (99.0, 1.0), (98.5, 0.0), (98.0, 2.0)], [(100.0, -0.0), (101.0, 1.0)])
    without = values_of([(99.0, 1.0), (98.0, 2.0)], [(101.0, 1.0)])
    assert with_zeros == without
    assert with_zeros["book_flag"] == "ok"


def test_levels_are_null_where_absent():
    row = values_of([(99.0, 1.5)], [(101.0, 2.5), (102.0, 3.5)], "levels")
    assert (row["bid_price_L0"], row["bid_size_L0"]) == (99.0, 1.5)
    assert (row["ask_price_L1"], row["ask_size_L1"]) == (102.0, 3.5)
    assert row["bid_price_L1"] is row["bid_size_L1"] is row["ask_price_L2"] is row["ask_size_L2"] is None


def test_one_row_and_no_row():
    everything = [*lakes.features_of("orderbook")]
    one = tickstate.compute(book_table([snapshot(MIDNIGHT, [(99.0, 1.0)], [(101.0, 1.0)])]), everything)
    none = tickstate.compute(book_table([]), everything)
    assert (one.num_rows, none.num_rows) == (1, 0)
    assert one.schema == none.schema
    one.validate(full=True)


def test_a_table_of_flagged_rows_alone():
    table = tickstate.compute(book_table([snapshot(MIDNIGHT + i, [], []) for i in range(3)]))
    assert table["book_flag"].to_pylist() == ["empty"] * 3
    assert table["mid_price"].null_count == 3


@given(books(max_rows=8))
def test_agrees_with_the_naive_reference(rows):
    table = tickstate.compute(book_table(rows), ["levels", "structure", "keys"])
    rows = lakes.ordered(rows)
    compared = lakes.assert_agrees(lakes.columns_of(table), naive.orderbook(rows), lakes.Lane("orderbook", rows))
    assert len(compared) >= 40 + 80


@given(books(max_rows=4, max_levels=6))
@settings(max_examples=25)
def test_agrees_with_the_naive_reference_at_other_settings(rows):
    config = {"run": {"depth": 3}, "features": {"smart_depth": {"decay_bps": 0.5}}}
    table = tickstate.compute(book_table(rows), ["levels", "structure"], config=config)
    rows = lakes.ordered(rows)
    want = naive.orderbook(rows, depth=3, decay_bps=0.5)
    assert len(lakes.assert_agrees(lakes.columns_of(table), want, lakes.Lane("orderbook", rows))) > 60


@given(books(max_rows=4))
@settings(max_examples=25)
def test_literal_arithmetic_is_exact(rows):
    """Where a comparison decides, the bits of FEATURES.md as written: mid and reach."""
    table = tickstate.compute(book_table(rows), ["mid_price", "spread", "bid_reach_bps", "ask_reach_bps"])
    want = naive.orderbook(lakes.ordered(rows))
    for name in ("mid_price", "spread", "bid_reach_bps", "ask_reach_bps"):
        assert table[name].to_pylist() == want[name], name


def test_a_slice_of_a_table_is_read_in_its_place():
    rows = lakes.random_book(np.random.default_rng(1), 40, flagged=0.2)
    table = book_table(rows)
    whole, part = book_rows(table, 5), book_rows(table.slice(10, 20), 5)
    valid = np.flatnonzero(whole.flag == 0)
    keep = (valid >= 10) & (valid < 30)
    assert part.flag.tolist() == whole.flag[10:30].tolist()
    assert 0 < keep.sum() < 20
    for name, array in part.arrays.items():
        here, there = (r.arrays[name][:, r.lead :] if array.ndim == 2 else r.arrays[name] for r in (part, whole))
        np.testing.assert_array_equal(here, there[..., keep], err_msg=name)


def test_chunked_input_is_read_like_one_chunk():
    table = book_table(lakes.random_book(np.random.default_rng(2), 30))
    cut = pa.concat_tables([table.slice(0, 7), table.slice(7, 11), table.slice(18)])
    assert cut["bids"].num_chunks == 3
    assert tickstate.compute(cut).equals(tickstate.compute(table))


def test_a_book_of_very_many_levels():
    """One among others, clean or with a fault in its last level: the first levels are as without the rest."""
    bids, asks = [(1e4 - i, 1.0 + i) for i in range(600)], [(1e4 + 1 + i, 2.0) for i in range(3)]
    wrong = [*bids[:-1], (1e4, 1.0)]
    found = book_rows(book_table([snapshot(MIDNIGHT + i, b, asks) for i, b in enumerate((bids[:4], bids, wrong))]), 4)
    assert found.flag.tolist() == [0, 0, FLAGS.index("unsorted")]
    assert found.arrays["bid_price"][:, found.lead :].T.tolist() == [[1e4 - i for i in range(4)]] * 2
    assert found.arrays["bid_levels"].tolist() == [4, 4]
    assert np.isnan(found.arrays["ask_size"][3, found.lead :]).all()


@given(seed=st.integers(0, 99), size=st.integers(1, 1300), depth=st.sampled_from((1, 4, 20)))
@settings(max_examples=4 if interpreted() else 25, deadline=None)
def test_all_in_one_call_are_the_bits_of_each_alone(seed, size, depth):
    """``whole_book``, over its blocks and their ends; with one column less they are computed apart."""
    names, lane = WHOLE.names, make_lane("orderbook", 40 if interpreted() else size, seed, gaps=0.05).shallow(depth)
    params = {"depth_imbalance": {"levels": (2, 3)}, "depth_bands": {"edges": (1, 3, 40)}}
    whole = build_graph("orderbook", names, params=params, settings=Settings(depth=depth))
    assert [b.kernel for b in whole.batches if b.fusion] == [WHOLE.kernel]
    found = run_lane(whole, lane)
    for name in names:
        alone = build_graph("orderbook", [name], params=params, settings=Settings(depth=depth))
        assert not any(b.fusion for b in alone.batches)
        for column, values in run_lane(alone, lane).items():
            np.testing.assert_array_equal(found[column], values, err_msg=column)


@pytest.mark.parametrize(
    ("features", "levels"),
    [(["mid_price"], 1), (["vwap_bid_5"], 5), (["mlofi", "mid_price"], 10), (["bid_reach_bps"], 20)],
)
def test_levels_that_no_feature_reads_are_not_made(features, levels):
    """The columns are those of the whole, and a fault in any level still takes the row out."""
    rows = lakes.random_book(np.random.default_rng(3), 60, levels=14, flagged=0.1)
    rows[20]["bids"] = [*rows[20]["bids"][:11], {"price": 1e9, "size": 1.0}]
    rows[21]["asks"] = [{"price": 1e6 + i, "size": 1.0 if i < 12 else math.nan} for i in range(13)]
    assert build_graph("orderbook", features).levels == levels
    few, whole = tickstate.compute(book_table(rows), features), tickstate.compute(book_table(rows))
    assert few["book_flag"].to_pylist()[20:22] == ["unsorted", "bad_value"]
    assert few.equals(whole.select(few.column_names))


def levels_of(price, size, sign, depth):
    """A side of one snapshot as ``fill_side`` has it: the first levels, how many there are, the faults."""
    found = [(p, s) for p, s in zip(price, size, strict=True) if s != 0.0]
    bad = any(not (0.0 < p < math.inf and 0.0 < s < math.inf) for p, s in found)
    order = any(not b < a for a, b in pairwise([math.inf, *(sign * p for p, _ in found)]))
    first = (found + [(math.nan, math.nan)] * depth)[:depth]
    return first, len(found), bad * FAULT_VALUE | order * FAULT_ORDER


@given(
    rows=st.integers(1, 600), widest=st.integers(0, 6), ragged=st.sampled_from((0.0, 0.01, 0.5)),
    wrong=st.sampled_from((0.0, 0.002, 0.1)), sign=st.sampled_from((1.0, -1.0)), depth=st.sampled_from((1, 3, 7)),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=10 if interpreted() else 100)
def test_sides_of_many_snapshots_are_those_of_each(rows, widest, ragged, wrong, sign, depth, seed):
    """Blocks of lists that are all as long or not, clean or with a few faults."""
    rng = np.random.default_rng(seed)
    widths = np.where(rng.random(rows) < ragged, rng.integers(0, widest + 1, rows), widest)
    offsets = np.concatenate(([0], np.cumsum(widths))).astype(np.int32)
    price = np.concatenate([100.0 - sign * np.arange(w) for w in widths]) if offsets[-1] else np.empty(0)
    size = rng.random(price.size) + 0.5
    for values in (price, size):
        faulty = rng.random(values.size) < wrong
        values[faulty] = rng.choice((0.0, -1.0, math.nan, math.inf, 99.0), faulty.sum())
    levels, faults = np.empty(rows, np.int64), np.empty(rows, np.uint8)
    prices, sizes = np.full((2, depth, rows + 1), -7.0)
    book.fill_side(offsets, price, size, sign, 1, levels, faults, prices, sizes)
    assert (prices[:, 0] == -7.0).all()
    for r in range(rows):
        begin, end = offsets[r : r + 2]
        first, count, fault = levels_of(price[begin:end].tolist(), size[begin:end].tolist(), sign, depth)
        assert (levels[r], faults[r]) == (count, fault)
        np.testing.assert_array_equal(np.array([prices[:, r + 1], sizes[:, r + 1]]).T, first)
