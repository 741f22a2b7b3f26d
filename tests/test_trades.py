"""Trades joined to the book (FEATURES.md 1, 3.3, 3.4): by hand, against tests/naive.py, and the kernels themselves."""

import itertools

import lakes
import naive
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lakes import MIDNIGHT, SECOND, SMALL, book_table, books
from tapes import touch, trade
from tapes import trades as tapes

import tickstate
from tickstate.kernels import order
from tickstate.lake.feed import TradeFeed
from tickstate.lake.tape import RepeatedIds, trade_rows

pytestmark = pytest.mark.kernels

S = SECOND
JOINED = ("trade_age_s", "trade_history_s", "signed_trade_vol")
WINDOWS = tuple(f"{name}_{h}s" for name in ("trade_vol", "trade_count", "signed_vol", "tfi") for h in (5, 15, 60))


def columns(snapshots, tape, features=("keys", "flow"), **config):
    """Rows (dicts) of snapshots at some seconds after midnight, and of trades as `(seconds, amount, side, ...)`."""
    rows = [touch(MIDNIGHT + round(s * S), 100 + i, nonce=i) for i, s in enumerate(snapshots)]
    found = [trade(MIDNIGHT + round(s * S), *others) for s, *others in tape]
    table = lakes.bronze_table("trades", found)
    return tickstate.compute(book_table(rows), features, trades=table, config=config or None).to_pylist()


def only(rows, name):
    return [row[name] for row in rows]


# ---- alive or unknown


@pytest.mark.parametrize(("age", "alive"), [(0, True), (299.999999, True), (300, True), (300.000001, False)])
def test_trades_are_alive_up_to_the_largest_gap(age, alive):
    """Unknown is null in every column of trades, zero is zero."""
    rows = columns([10 + age - 1, 10 + age], [(10, 2.0)])
    wanted = [c for c in rows[1] if c in JOINED or c.startswith(("trade_", "signed_", "tfi_"))]
    assert len(wanted) == 3 + 4 * 5
    if alive:
        assert rows[1]["trade_age_s"] == age
        assert rows[1]["trade_vol_5s"] == (2.0 if age == 0 else 0.0)
        assert rows[1]["trade_count_5s"] == (1 if age == 0 else 0)
        assert rows[1]["tfi_5s"] == (1.0 if age == 0 else None)
        assert rows[1]["trade_vol_900s"] == 2.0
        assert rows[1]["signed_trade_vol"] == (2.0 if age == 0 else 0.0)
    else:
        assert {rows[1][c] for c in wanted} == {None}


def test_the_largest_gap_is_a_lane_fact():
    facts = {"lanes": {"demo/A-B": {"trades_max_gap": 2.5}}}
    rows = columns([1, 2.5, 2.500001, 2.6], [(0, 1.0)], **facts)
    assert only(rows, "trade_age_s") == [1.0, 2.5, None, None]
    facts["lanes"]["demo/A-B"]["trades_max_gap"] = 3000
    rows = columns([1, 3000, 3000.5], [(0, 1.0)], **facts)
    assert only(rows, "trade_age_s") == [1.0, 3000.0, None]
    assert only(rows, "trade_vol_900s") == [1.0, 0.0, None]


def test_without_any_trade_all_is_unknown():
    rows = columns([0, 1, 2], [])
    assert {row[name] for row in rows for name in (*JOINED, *WINDOWS)} == {None}
    assert "trade_vol_5s" in rows[0]


def test_before_the_first_trade_all_is_unknown():
    rows = columns([0, 1, 2, 3], [(2, 1.0)])
    assert only(rows, "trade_age_s") == [None, None, 0.0, 1.0]
    assert only(rows, "signed_trade_vol") == [None, None, 1.0, 0.0]


@pytest.mark.parametrize(("gap", "history"), [(299.999999, 319.999999), (300, 320), (300.000001, 10)])
def test_history_begins_after_the_last_gap(gap, history):
    rows = columns([20 + gap], [(0, 1.0), (10, 1.0), (10 + gap, 1.0)])
    assert rows[0]["trade_history_s"] == pytest.approx(history, abs=1e-9)
    assert rows[0]["trade_age_s"] == 10.0


def test_history_stops_at_the_longest_window():
    rows = columns([899, 901, 5000], [(250 * i, 1.0) for i in range(20)])
    assert only(rows, "trade_history_s") == [899.0, 900.0, 900.0]


# ---- which trades a snapshot sees


def test_a_trade_belongs_to_the_first_snapshot_at_or_after_it():
    tape = [(0.5, 1.0), (1, 2.0), (1.000001, 4.0), (2, 8.0, "sell"), (2.5, 16.0)]
    rows = columns([0, 1, 2, 3, 4], [(-1, 32.0), *tape])
    assert only(rows, "signed_trade_vol") == [None, 3.0, -4.0, 16.0, 0.0]


def test_snapshots_of_one_time():
    """The first of them sees the trades up to that time, the next one none: (t_prev, t] is empty."""
    rows = columns([0, 1, 1, 1, 2], [(0, 1.0), (1, 2.0), (1, 4.0), (1.5, 8.0)])
    assert only(rows, "signed_trade_vol") == [None, 6.0, 0.0, 0.0, 8.0]
    assert only(rows, "trade_vol_5s") == [1.0, 7.0, 7.0, 7.0, 15.0]


@pytest.mark.parametrize(("gap", "volume"), [(299.5, 1.0), (300, 1.0), (300.000001, None)])
def test_without_a_previous_snapshot_there_is_no_interval(gap, volume):
    rows = columns([0, gap, gap + 1], [(gap, 1.0)])
    assert only(rows, "signed_trade_vol") == [None, volume, 0.0]


def test_flagged_snapshots_see_no_trades_and_hide_none():
    rows = [touch(MIDNIGHT + i * S, nonce=i) for i in range(4)]
    rows[1]["bids"], rows[2]["asks"] = [], None
    tape = [trade(MIDNIGHT + i * S - 1, 2.0**i) for i in range(4)]
    found = tickstate.compute(book_table(rows), ["keys", "flow"], trades=lakes.bronze_table("trades", tape)).to_pylist()
    assert only(found, "signed_trade_vol") == [None, None, None, 14.0]
    assert only(found, "trade_age_s") == [1e-6, None, None, 1e-6]


def test_windows_are_half_open():
    rows = columns([5, 5.000001], [(0, 1.0), (5, 2.0)])
    assert only(rows, "trade_vol_5s") == [2.0, 2.0]
    assert only(rows, "trade_vol_15s") == [3.0, 3.0]
    assert only(columns([4.999999], [(0, 1.0)]), "trade_vol_5s") == [1.0]


def test_a_trade_without_a_side_counts_in_volume_and_number_only():
    rows = columns([0, 1], [(0.5, 1.0, "buy"), (0.6, 2.0, None), (0.7, 4.0, "sell"), (0.8, 8.0, "unknown")])
    wanted = {"trade_vol_5s": 15.0, "trade_count_5s": 4, "signed_vol_5s": -3.0, "tfi_5s": -0.6}
    assert {name: rows[1][name] for name in wanted} == wanted
    assert rows[1]["signed_trade_vol"] == -3.0
    alone = columns([0, 1], [(0.6, 2.0, None)])[1]
    wanted = {"trade_vol_5s": 2.0, "trade_count_5s": 1, "signed_vol_5s": 0.0, "tfi_5s": None, "signed_trade_vol": 0.0}
    assert {name: alone[name] for name in wanted} == wanted


@pytest.mark.parametrize("bad", [0.0, -1.0, None, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", ["price", "amount"])
def test_a_bad_trade_is_in_no_window_and_keeps_nothing_alive(column, bad):
    rows = [touch(MIDNIGHT + i * S, nonce=i) for i in (0, 1, 300, 301)]
    tape = [trade(MIDNIGHT, 2.0), trade(MIDNIGHT + S, 4.0, **{column: bad}) if column == "price" else None]
    tape[1] = tape[1] or trade(MIDNIGHT + S, bad)
    found = tickstate.compute(book_table(rows), ["keys", "flow"], trades=lakes.bronze_table("trades", tape)).to_pylist()
    assert only(found, "trade_age_s") == [0.0, 1.0, 300.0, None]
    assert only(found, "trade_count_5s") == [1, 1, 0, None]
    assert only(found, "signed_trade_vol") == [None, 0.0, 0.0, None]


# ---- repeated trades


def ids_kept(*tape):
    """Which of some trades, `(seconds, id)`, are kept in the channel trades."""
    rows = [trade(MIDNIGHT + round(s * S), 2.0**i, "buy", name) for i, (s, name) in enumerate(tape)]
    found = tickstate.compute(lakes.bronze_table("trades", rows), "trade_values", channel="trades")
    book = [touch(MIDNIGHT + 2000 * S)]
    config = {"lanes": {"demo/A-B": {"trades_max_gap": 2000}}, "features": {"trade_windows": {"horizons": [3000]}}}
    table = lakes.bronze_table("trades", rows)
    joined = tickstate.compute(book_table(book), "trade_windows", trades=table, config=config)
    assert joined["trade_vol_3000s"].to_pylist() == [sum(found["amount"].to_pylist())]  # the book sees the same ones
    return [int(np.log2(amount)) for amount in found["amount"].to_pylist()]


@pytest.mark.parametrize(
    ("tape", "kept"),
    [
        ([(0, "a"), (0, "a")], [0]),
        ([(0, "a"), (300, "a")], [0]),
        ([(0, "a"), (300.000001, "a")], [0, 1]),
        ([(0, "a"), (200, "a"), (400, "a"), (701, "a")], [0, 3]),  # a dropped one counts as an earlier one
        ([(0, "a"), (100, "b"), (200, "a"), (300, "b")], [0, 1]),
        ([(0, None), (0, None), (1, None)], [0, 1, 2]),
        ([(0, ""), (1, ""), (2, None)], [0, 2]),  # an empty text is an id
        ([(0, "1"), (0, "01"), (0, "1 "), (0, "\u00e9"), (0, "e\u0301")], [0, 1, 2, 3, 4]),
        ([(0, None), (0, "a"), (0, None), (0, "a"), (0, "b")], [0, 1, 2, 4]),
        ([(0, "ab"), (0, "a"), (0, "b"), (0, "ba")], [0, 1, 2, 3]),
    ],
)
def test_a_trade_id_that_comes_again(tape, kept):
    assert ids_kept(*tape) == kept


def test_a_bad_trade_with_an_id_is_an_earlier_trade():
    rows = [trade(MIDNIGHT, 0.0, trade_id="a"), trade(MIDNIGHT + S, 1.0, trade_id="a")]
    found = tickstate.compute(lakes.bronze_table("trades", rows), channel="trades")
    assert found["amount"].to_pylist() == [0.0]


def dropped(rows, cuts):
    """Rows kept by RepeatedIds, the table cut in pieces."""
    table = lakes.bronze_table("trades", rows).append_column("_source", [np.arange(len(rows)) * 0])
    memory, edges, found = RepeatedIds(), [0, *sorted(cuts), len(rows)], []
    for begin, end in itertools.pairwise(edges):
        if end > begin:
            found += memory.drop(table.slice(begin, end - begin))["cost"].to_pylist()
    return found


@given(tapes(near=(299, 300, 301)), st.lists(st.integers(0, 20), max_size=4))
def test_repeats_are_those_of_the_naive_reference(rows, cuts):
    """However the tape comes in pieces."""
    rows = [row | {"cost": float(i)} for i, row in enumerate(rows)]
    kept = [row["cost"] for row in naive.drop_duplicates(rows)]
    assert dropped(rows, [c for c in cuts if c <= len(rows)]) == kept


def test_repeats_at_the_edge_of_what_is_remembered():
    tape = [(0, "a"), (300, "b"), (300, "a"), (600, "a"), (600, "b"), (900.000001, "b")]
    rows = [trade(MIDNIGHT + round(t * S), trade_id=i, cost=float(n)) for n, (t, i) in enumerate(tape)]
    assert dropped(rows, range(1, len(rows))) == dropped(rows, ()) == [0.0, 1.0, 5.0]


def test_ids_of_two_symbols_are_apart():
    rows = [trade(MIDNIGHT, 1.0, trade_id="a"), trade(MIDNIGHT, 2.0, trade_id="a"), trade(MIDNIGHT, 4.0, trade_id="a")]
    table = lakes.bronze_table("trades", rows).append_column("_source", [np.array([1, 2, 1])])
    assert RepeatedIds().drop(table)["amount"].to_pylist() == [1.0, 2.0]


def test_ids_whose_slots_collide():
    """More ids than half the table: some must share a slot."""
    rng = np.random.default_rng(0)
    keys = rng.integers(-(2**62), 2**62, 400)
    high = np.concatenate((keys, keys))
    low = np.concatenate((keys[::-1], keys[::-1]))
    times = np.concatenate((np.zeros(400, np.int64), np.full(400, 5)))
    out = np.empty(800, np.uint8)
    order.find_recent(times, high, low, 5, out)
    assert out.tolist() == [0] * 400 + [1] * 400
    order.find_recent(times, high, low, 4, out)
    assert not out.any()
    equal = np.zeros(800, np.int64)  # the same slot for all, and only one of the two halves tells them apart
    order.find_recent(times, np.arange(800), equal, 5, out)
    assert not out.any()
    order.find_recent(times, equal, np.arange(800), 5, out)
    assert not out.any()


@given(st.lists(st.text(max_size=4), max_size=12), st.integers(-(2**63), 2**63 - 1))
def test_equal_texts_have_equal_hashes_and_others_do_not(texts, seed):
    data = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, data)]).astype(np.int32)
    out = np.full(len(texts), seed, np.int64)
    order.hash_texts(offsets, np.frombuffer(b"".join(data) or b"\0", np.uint8), out)
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            assert (out[i] == out[j]) == (one == other)


# ---- the feed


@given(tapes(max_rows=12), st.lists(st.integers(0, 12), max_size=4), st.lists(st.integers(-5, 5000), max_size=5))
@settings(max_examples=50)
def test_the_feed_hands_every_good_trade_over_once(rows, cuts, asked):
    table = lakes.bronze_table("trades", rows)
    edges = [0, *sorted(c for c in cuts if c <= len(rows)), len(rows)]
    chunks = (trade_rows(table.slice(b, e - b)) for b, e in itertools.pairwise(edges))
    feed, seen, last = TradeFeed(chunks), [], None
    for seconds in [*sorted(asked), 10**7]:
        last, before = MIDNIGHT + (seconds - 2000) * S, last
        found = feed.until(last)
        times = [] if found is None else found["capture_ts"].tolist()
        assert all((before is None or t > before) and t <= last for t in times)
        seen += times
    assert seen == [row["capture_ts"] for row in rows if naive.trade_is_good(row)]


# ---- against the naive reference


def against_naive(rows, tape, max_gap=300.0, **options):
    """Compute and compare every column; the tables are given in another order than the contract's."""
    config = {"lanes": {"demo/A-B": {"trades_max_gap": max_gap}}, "features": {"vpin": lakes.VPIN["vpin"]}}
    trades = naive.drop_duplicates(naive.order(tape))
    table = tickstate.compute(
        book_table(rows[::-1]), [*lakes.features_of("orderbook")],
        trades=lakes.bronze_table("trades", tape), config=config,
    )  # fmt: skip
    rows = lakes.ordered(rows)
    lane = lakes.Lane("orderbook", rows, trades)
    want = naive.orderbook(
        rows, trades, trades_max_gap=max_gap, bucket_volume=3.0, vpin_window=4, min_buckets=2, **options
    )
    return table, lakes.assert_agrees(lakes.columns_of(table), want, lane)


@given(books(max_rows=12, max_levels=3), tapes(max_rows=16), st.sampled_from((300.0, 2.5, 1000.0)))
@example([touch(MIDNIGHT)], [], 300.0)
def test_agrees_with_the_naive_reference(rows, tape, max_gap):
    rows = [row | {"nonce": i} for i, row in enumerate(rows)]  # given in reverse: keys must tell rows apart
    compared = against_naive(rows, tape, max_gap)[1]
    assert len(compared) > 100
    assert {*JOINED, *WINDOWS, "kyle_lambda", "vpin", "vpin_buckets"} <= {*compared}


@pytest.mark.slow
@given(st.integers(0, 2**32), st.sampled_from((0.3, 1.0, 8.0)), st.sampled_from((0.1, 0.9, 40.0)))
@settings(max_examples=8)
def test_agrees_with_the_naive_reference_on_a_long_tape(seed, gap, trade_gap):
    """Enough rows for ranks and regressions, which need 30."""
    rng = np.random.default_rng(seed)
    start = MIDNIGHT - int(rng.integers(0, 200)) * S
    rows = lakes.random_book(rng, 200, start, gap, levels=4)
    tape = lakes.random_tape(rng, round(200 * gap / trade_gap) + 1 if trade_gap > 0.1 else 800, start, trade_gap)
    table, _ = against_naive(rows, tape[:1500])
    if gap == 1.0 and trade_gap == 0.9:
        for name in ("spread_percentile", "ofi_beta", "kyle_lambda", "vpin"):
            assert table[name].null_count < 160, name


@given(tapes(max_rows=14, ids=False), st.data())
@settings(max_examples=40)
def test_the_order_in_which_trades_come_does_not_matter(tape, data):
    tape = [row | {"trade_id": str(i), "timestamp": i} for i, row in enumerate(tape)]
    shuffled = data.draw(st.permutations(tape))
    book = book_table([touch(MIDNIGHT + i * 97 * S, nonce=i) for i in range(6)])
    one, other = (
        tickstate.compute(book, ["keys", "flow", "impact"], trades=lakes.bronze_table("trades", t), config=CONFIG)
        for t in (tape, shuffled)
    )
    assert one.equals(other)


CONFIG = {"features": SMALL}
