"""FEATURES.md section 1, "Valid snapshot": which flag, which first, and that flagged rows touch nothing else."""

import math

import lakes
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakes import MIDNIGHT, SECOND, book_table, books, snapshot

import tickstate
from tickstate.kernels.book import FLAGS
from tickstate.kernels.columns import finish_columns

pytestmark = pytest.mark.kernels

NAN, INF = math.nan, math.inf
BID, ASK = (99.0, 1.0), (101.0, 1.0)
KEYS = ("capture_ts", "timestamp", "nonce", "row_id", "book_flag", "latency_ms", *lakes.PARTITION)


def flag_of(bids, asks, **run):
    table = tickstate.compute(book_table([snapshot(MIDNIGHT, bids, asks)]), "mid_price", config={"run": run})
    flag, mid = table["book_flag"][0].as_py(), table["mid_price"][0].as_py()
    assert (mid is not None) == (flag == "ok")
    if not run:
        row = lakes.to_naive(book_table([snapshot(MIDNIGHT, bids, asks)]))[0]
        assert flag == naive.book_flag(row["bids"], row["asks"])
    return flag


@pytest.mark.parametrize(
    ("bids", "asks", "flag"),
    [
        ([BID], [ASK], "ok"),
        ([BID, (98.0, 1.0)], [ASK, (102.0, 1.0)], "ok"),
        # no level
        ([], [], "empty"),
        (None, None, "empty"),
        (None, [], "empty"),
        ([(99.0, 0.0)], [], "empty"),
        ([(99.0, -0.0)], [(NAN, 0.0), (None, 0.0)], "empty"),  # a level of size 0 is removed first
        # one side
        ([BID], [], "one_sided"),
        (None, [ASK], "one_sided"),
        ([BID], [(101.0, 0.0)], "one_sided"),
        # values
        *(([BID], [(price, 1.0)], "bad_value") for price in (NAN, INF, -INF, None, 0.0, -0.0, -1.0)),
        *(([BID], [(101.0, size)], "bad_value") for size in (NAN, INF, -INF, None, -1.0, -5e-324)),
        ([(price, 1.0) for price in (NAN, 98.0)], [ASK], "bad_value"),
        ([None], [ASK], "bad_value"),  # a null level
        ([BID, None], [ASK], "bad_value"),
        ([BID], [ASK, (None, None)], "bad_value"),
        # order
        ([BID, BID], [ASK], "unsorted"),
        ([BID, (99.5, 1.0)], [ASK], "unsorted"),
        ([BID], [ASK, ASK], "unsorted"),
        ([BID], [ASK, (100.5, 1.0)], "unsorted"),
        ([BID, (98.0, 1.0), (97.0, 1.0), (98.0, 1.0)], [ASK], "unsorted"),
        ([BID, (98.0, 0.0), (98.5, 1.0)], [ASK], "ok"),  # what is removed has no order
        ([(99.5, 0.0), BID], [ASK], "ok"),
        # touch
        ([(101.5, 1.0)], [ASK], "crossed"),
        ([ASK], [ASK], "locked"),
        ([(101.0, 0.0), BID], [ASK], "ok"),
        ([(math.nextafter(101.0, 0), 1.0)], [ASK], "ok"),
        ([(math.nextafter(101.0, 200), 1.0)], [ASK], "crossed"),
        # extremes are values
        ([(5e-324, 5e-324)], [(1e308, 1.7e308)], "ok"),
    ],
)
def test_flag(bids, asks, flag):
    assert flag_of(bids, asks) == flag


BAD, UNSORTED = (NAN, 1.0), (50.0, 1.0)


@pytest.mark.parametrize(
    ("bids", "asks", "flag"),
    [
        ([BAD, UNSORTED, UNSORTED], [], "one_sided"),  # before bad_value and unsorted
        ([(102.0, 1.0), UNSORTED, UNSORTED, (40.0, -1.0)], [ASK], "bad_value"),  # before unsorted and crossed
        ([(102.0, 1.0), UNSORTED, UNSORTED], [ASK], "unsorted"),  # before crossed
        ([ASK, UNSORTED, UNSORTED], [ASK], "unsorted"),  # before locked
        ([BID], [(50.0, 1.0), (49.0, 1.0)], "unsorted"),
    ],
)
def test_the_first_flag_that_applies(bids, asks, flag):
    assert flag_of(bids, asks) == flag


@pytest.mark.parametrize("bad", [(NAN, 1.0), (1.0, -1.0), None])
@pytest.mark.parametrize("side", ["bids", "asks"])
def test_all_levels_are_checked_not_those_within_depth_alone(side, bad):
    sides = {"bids": [(99.0 - i, 1.0) for i in range(30)], "asks": [(101.0 + i, 1.0) for i in range(30)]}
    assert flag_of(**sides, depth=3) == "ok"
    assert flag_of(**sides | {side: [*sides[side], bad]}, depth=3) == "bad_value"
    repeated = [*sides[side], sides[side][-1]]
    assert flag_of(**sides | {side: repeated}, depth=3) == "unsorted"


def test_flags_have_the_names_of_the_page():
    assert FLAGS == ("ok", "empty", "one_sided", "bad_value", "unsorted", "crossed", "locked")


@given(books(faults=lakes.FAULTS * 2))
def test_flags_agree_with_the_naive_reference(rows):
    table = tickstate.compute(book_table(rows), "mid_price")
    assert table["book_flag"].to_pylist() == [naive.book_flag(r["bids"], r["asks"]) for r in lakes.ordered(rows)]


def test_flagged_rows_keep_their_keys_and_nothing_else():
    faults = [
        lakes.spoil(snapshot(MIDNIGHT + i, [BID], [ASK], timestamp=7), fault) for i, fault in enumerate(lakes.FAULTS)
    ]
    rows = [snapshot(MIDNIGHT - 1, [BID], [ASK]), *faults, snapshot(MIDNIGHT + 99, [BID], [ASK])]
    table = tickstate.compute(book_table(rows), [*lakes.features_of("orderbook")])
    assert table.num_rows == len(rows)
    flagged = table.slice(1, len(faults))
    assert "ok" not in flagged["book_flag"].to_pylist()
    assert flagged["row_id"].to_pylist() == list(range(len(faults)))  # the row before is of another hour
    assert flagged["latency_ms"].to_pylist() == [(MIDNIGHT + i) / 1000 - 7 for i in range(len(faults))]
    for name in table.column_names:
        expected = flagged.num_rows if name not in KEYS or name == "nonce" else 0
        assert flagged[name].null_count == expected, name
    assert table["ofi"].to_pylist() == [None] * (len(rows) - 1) + [0.0]  # the step is over all of them


@given(books(min_rows=2, max_rows=12, max_levels=4, faults=lakes.FAULTS), lakes.tapes(max_rows=8))
def test_flagged_rows_do_not_disturb_the_others(rows, tape):
    """Taking them out leaves the bits of the others."""
    graph = lakes.graph_of("orderbook", params=lakes.SMALL)
    rows = lakes.ordered(rows)
    ok = np.array([naive.book_flag(row["bids"], row["asks"]) == "ok" for row in rows])
    whole = lakes.run_engine(graph, lakes.Lane("orderbook", rows, tape))
    if ok.any():
        valid = lakes.run_engine(graph, lakes.Lane("orderbook", [r for r, v in zip(rows, ok, strict=True) if v], tape))
        lakes.assert_same_bits({name: values[ok] for name, values in whole.items()}, valid)
    assert all(np.isnan(values[~ok]).all() for values in whole.values())


@given(st.lists(st.sampled_from(["ok", *lakes.FAULTS]), min_size=1, max_size=40))
def test_any_pattern_of_flags_fits_the_bits_of_arrow(pattern):
    """Validity is a bitmap: bytes that are full, empty, mixed and cut off."""
    rows = [snapshot(MIDNIGHT + i * SECOND, [BID], [ASK], nonce=i) for i in range(len(pattern))]
    rows = [row if fault == "ok" else lakes.spoil(row, fault) for row, fault in zip(rows, pattern, strict=True)]
    table = tickstate.compute(book_table(rows), ["mid_price", "ofi"])
    table.validate(full=True)
    assert table["mid_price"].to_pylist() == [100.0 if fault == "ok" else None for fault in pattern]
    first = pattern.index("ok") if "ok" in pattern else None
    expected = [0.0 if fault == "ok" and i != first else None for i, fault in enumerate(pattern)]
    assert table["ofi"].to_pylist() == expected


@given(st.lists(st.sampled_from((0.0, -0.0, 1.5, -2.5, NAN, -NAN, INF, -INF, 1.7e308, 5e-324)), max_size=20))
def test_columns_end_with_one_nan_and_no_negative_zero(given_values):
    values = np.array([given_values, given_values[::-1]])
    validity, nulls = np.empty((2, (len(given_values) + 7) // 8), np.uint8), np.empty(2, np.int64)
    finish_columns(values, validity, nulls)
    want = [v + 0.0 if math.isfinite(v) else NAN for v in given_values]
    for row, expected in enumerate((want, want[::-1])):
        np.testing.assert_array_equal(lakes.bits(values[row]), lakes.bits(np.array(expected, float)))
        known = [not math.isnan(v) for v in expected]
        assert np.unpackbits(validity[row], bitorder="little")[: len(known)].tolist() == known
        assert nulls[row] == known.count(False)


@pytest.mark.parametrize("us", [0, 1, 999, 1000, -1, 1_500])
def test_latency(us):
    row = snapshot(MIDNIGHT + us, [BID], [ASK], timestamp=MIDNIGHT // 1000 + 2)
    table = tickstate.compute(book_table([row]), "mid_price")
    assert table["latency_ms"].to_pylist() == [us / 1000 - 2]
