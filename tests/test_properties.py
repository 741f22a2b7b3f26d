"""What holds for every registered feature, whatever it computes: DESIGN.md, contracts 1 and 3."""

import math

import lakes
import naive
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import MIDNIGHT, SECOND, assert_same_bits, book_table, books, snapshot

import tickstate
from tickstate.kernels import order
from tickstate.kernels._jit import interpreted

pytestmark = pytest.mark.kernels

FEW = settings(max_examples=3 if interpreted() else 20)
SOME = settings(max_examples=10 if interpreted() else 40)
EVERY = [(channel, name) for channel in ("orderbook", "trades", "ticker") for name in lakes.features_of(channel)]
BOUNDED = [(c, n) for c, n in EVERY if not lakes.graph_of(c, n).unbounded]
bounded_features = pytest.mark.parametrize(("channel", "name"), BOUNDED, ids=[f"{c}-{n}" for c, n in BOUNDED])
every_feature = pytest.mark.parametrize(("channel", "name"), EVERY, ids=[f"{c}-{n}" for c, n in EVERY])


@st.composite
def lanes(draw, channel="orderbook", max_rows=14, **options):
    """A lane of a channel, the trades of a book with it."""
    if channel == "trades":
        return lakes.Lane(channel, draw(lakes.tapes(min_rows=1, max_rows=max_rows)))
    if channel == "ticker":
        return lakes.Lane(channel, draw(lakes.quotes(max_rows=max_rows)))
    rows = draw(books(max_rows=max_rows, max_levels=4, **options))
    return lakes.Lane(channel, lakes.ordered(rows), draw(lakes.tapes(max_rows=10)))


def cuts_of(lane):
    return st.lists(st.integers(0, len(lane)), max_size=5)


def graph_of(channel, name=None):
    return lakes.graph_of(channel, *([name] if name else []), params=lakes.SMALL)


def from_row(values, first):
    return {name: column[first:] for name, column in values.items()}


# ---- contract 1: cuts, starts, order


@pytest.mark.parametrize("channel", ["orderbook", "trades", "ticker"])
@given(st.data())
@SOME
def test_any_cut_gives_the_same_bits(channel, data):
    graph, lane = graph_of(channel), data.draw(lanes(channel))
    whole = lakes.run_engine(graph, lane)
    cuts = data.draw(cuts_of(lane))
    assert_same_bits(lakes.run_engine(graph, lane, cuts), whole)
    assert_same_bits(lakes.run_engine(graph, lane, cuts, reload=True), whole)
    assert_same_bits(lakes.run_engine(graph, lane, range(len(lane)), reload=True), whole)


@every_feature
@given(st.data())
@FEW
def test_any_cut_gives_the_same_bits_of_a_feature_alone(channel, name, data):
    """Alone it keeps only its own tails: another feature's longer one cannot help it."""
    graph, lane = graph_of(channel, name), data.draw(lanes(channel))
    whole = lakes.run_engine(graph, lane)
    assert_same_bits(lakes.run_engine(graph, lane, data.draw(cuts_of(lane)), reload=True), whole)


@bounded_features
@given(st.data())
@FEW
def test_a_cold_start_at_the_lookback_gives_the_same_bits(channel, name, data):
    """From no more rows than the lookback says, pushed in pieces and not emitted, come the bits of the whole past."""
    graph, lane = graph_of(channel, name), data.draw(lanes(channel))
    start = data.draw(st.integers(0, len(lane) - 1))
    whole = from_row(lakes.run_engine(graph, lane), start)
    t = int(lane.times[start])
    begin = int(np.searchsorted(lane.times, t - graph.total_lookback, side="left"))
    since = graph.trades_since(t) if graph.joins else None
    cuts = data.draw(cuts_of(lane))
    assert_same_bits(lakes.run_engine(graph, lane, cuts, start, begin, since), whole)
    assert_same_bits(lakes.run_engine(graph, lane, cuts, start, begin, since, reload=True), whole)
    earlier = data.draw(st.integers(0, begin))
    assert_same_bits(lakes.run_engine(graph, lane, (), start, earlier, since), whole)


@pytest.mark.slow
@pytest.mark.parametrize("gap", [4.0, 60.0])
@pytest.mark.parametrize("channel", ["orderbook", "trades", "ticker"])
def test_cuts_and_cold_starts_of_a_long_lane(channel, gap):
    """Enough rows that every block of every window has some, and far longer than any lookback but VPIN's days."""
    lane = lakes.small_lanes(300, gap)[channel]
    graph = lakes.graph_of(channel, *(name for c, name in BOUNDED if c == channel), params=lakes.SMALL)
    whole = lakes.run_engine(graph, lane)
    assert any((~np.isnan(column)).sum() > 200 for column in whole.values())
    cuts = np.random.default_rng(0).integers(0, len(lane), 12).tolist()
    assert_same_bits(lakes.run_engine(graph, lane, cuts, reload=True), whole)
    for feature in graph.features:  # alone, since another's lookback may be longer
        alone = graph_of(channel, feature.name)
        for start in (len(lane) - 20, len(lane) // 2):
            t = int(lane.times[start])
            begin = int(np.searchsorted(lane.times, t - alone.total_lookback))
            got = lakes.run_engine(alone, lane, (start + 5,), start, begin, alone.trades_since(t))
            assert_same_bits(got, {name: whole[name][start:] for name in got})


def test_a_cold_start_of_buckets_takes_the_day_before():
    """VPIN after midnight: buckets of all of yesterday count, those of the day before do not."""
    day = 86_400 * SECOND
    trade = {"timestamp": 0, "trade_id": None, "side": "buy", "price": 1.0, "amount": 3.0}
    tape = [trade | {"capture_ts": MIDNIGHT + t} for t in (-day - 1, -day, -1, 5)]
    rows = lakes.ordered([snapshot(MIDNIGHT + t, [(99.0, 1.0)], [(101.0, 1.0)]) for t in (-day + 1, 0, 9)])
    graph, lane = graph_of("orderbook", "vpin"), lakes.Lane("orderbook", rows, tape)
    whole = lakes.run_engine(graph, lane)
    assert whole["vpin_buckets"].tolist() == [2, 2, 3]
    for start in (1, 2):
        since = graph.trades_since(rows[start]["capture_ts"])
        assert since == MIDNIGHT - day
        assert_same_bits(lakes.run_engine(graph, lane, (), start, 1, since), from_row(whole, start))


@pytest.mark.parametrize("channel", ["orderbook", "trades", "ticker"])
@given(st.data())
@SOME
def test_a_prefix_gives_a_prefix(channel, data):
    """No look-ahead: neither into later rows nor, of a book, into later trades."""
    graph, lane = graph_of(channel), data.draw(lanes(channel))
    n = data.draw(st.integers(1, len(lane)))
    whole = lakes.run_engine(graph, lane)
    assert_same_bits(lakes.run_engine(graph, lane.prefix(n)), {k: v[:n] for k, v in whole.items()})
    if channel == "orderbook":
        t = int(lane.times[n - 1])
        known = lakes.Lane(channel, lane.rows[:n])
        known.tape = lane.trades(-(1 << 62), t)
        assert_same_bits(lakes.run_engine(graph, known), {k: v[:n] for k, v in whole.items()})


@given(books(nonces=False, max_rows=10, max_levels=3), st.randoms())
@SOME
def test_the_order_of_the_input_does_not_matter(rows, random):
    """Rows with distinct keys are put in the contract's order, in whatever order they come."""
    rows = [row | {"nonce": i} for i, row in enumerate(rows)]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    features = [*lakes.features_of("orderbook")]
    assert tickstate.compute(book_table(shuffled), features).equals(tickstate.compute(book_table(rows), features))


@given(books(max_rows=10, max_levels=3))
@SOME
def test_repeated_rows_say_nothing_new(rows):
    doubled = [row for row in rows for _ in range(2)]
    once = [*lakes.ordered(rows)]
    features = [*lakes.features_of("orderbook")]
    table = tickstate.compute(book_table(doubled), features)
    assert table.num_rows == len(once)
    assert table.equals(tickstate.compute(book_table(once), features))


@given(books(max_rows=8, max_levels=3))
@FEW
def test_lanes_are_apart(rows):
    """Two lanes in one table: each as if alone."""
    one, two = book_table(rows, symbol="A"), book_table(rows, symbol="B")
    both = tickstate.compute(pa.concat_tables([two, one]))
    alone = [tickstate.compute(table) for table in (one, two)]
    assert both.equals(pa.concat_tables(alone))


def test_few_features_are_of_unbounded_past():
    """Those need the state of the partition before; every other has a lookback that the tests above hold it to."""
    assert set(EVERY) - set(BOUNDED) <= {("orderbook", "ewma")}


# ---- symmetry


def mirrored(rows, top=40_000.0):
    """Bids and asks change places about top / 2: exact, prices being whole numbers."""

    def side(levels):
        return levels and [{"price": top - level["price"], "size": level["size"]} for level in levels]

    return [row | {"bids": side(row["asks"]), "asks": side(row["bids"])} for row in rows]


@given(books(tick=1.0, faults=()))
@SOME
def test_a_mirrored_book_has_the_opposite_flow(rows):
    rows = lakes.ordered(rows)
    graph = lakes.graph_of("orderbook", "ofi", "depth_imbalance", "ofi_sum", "mlofi_sum")
    here, there = (lakes.run_engine(graph, lakes.Lane("orderbook", r)) for r in (rows, mirrored(rows)))
    flips = [n for n in here if n.startswith(("depth_imbalance", "total_imbalance", "ofi", "mlofi"))]
    assert len(flips) >= 4 + 1 + 11 + 10
    for name in flips:
        np.testing.assert_array_equal(there[name], -here[name], err_msg=name)
    for one, other in (("total_bid_depth", "total_ask_depth"), ("total_ask_depth", "total_bid_depth")):
        np.testing.assert_array_equal(there[one], here[other])


# ---- never an infinity, never -0.0

only_compiled = pytest.mark.skipif(interpreted(), reason="Python's math raises where IEEE arithmetic is infinite")
EXTREMES = (5e-324, 1e-300, 1e-10, 1.0, 1e10, 1e300, 1.7e308)


@st.composite
def extreme_lanes(draw, channel):
    """Values from the ends of what a double holds, at times of all kinds."""
    size, t, rows = st.sampled_from(EXTREMES), MIDNIGHT, []
    steps = st.sampled_from((0, 1, SECOND, 10 * SECOND, 100 * SECOND))
    prices = st.lists(size, min_size=2, max_size=6, unique=True).map(sorted)
    tape = []
    for i in range(draw(st.integers(1, 8))):
        t += draw(steps)
        row = {"capture_ts": t, "timestamp": draw(st.sampled_from((0, t // 1000, 2**62, -(2**62)))), "trade_id": None}
        found = draw(prices)
        cut = draw(st.integers(1, len(found) - 1))
        if channel == "orderbook":
            bids, asks = ([(p, draw(size)) for p in side] for side in (found[:cut][::-1], found[cut:]))
            rows.append(snapshot(t, bids, asks, nonce=i, timestamp=row["timestamp"]))
        elif channel == "ticker":
            volumes = st.sampled_from((*EXTREMES, 0.0, -0.0))
            rows.append(
                row | {"bid": found[0], "ask": found[1], "bid_volume": draw(volumes), "ask_volume": draw(volumes)}
            )
        trade = row | {"side": draw(st.sampled_from(("buy", "sell", None))), "price": draw(size), "amount": draw(size)}
        (rows if channel == "trades" else tape).append(trade)
    return lakes.Lane(channel, lakes.ordered(rows) if channel == "orderbook" else rows, tape)


@only_compiled
@pytest.mark.parametrize("channel", ["orderbook", "trades", "ticker"])
@given(st.data())
def test_no_infinity_and_no_negative_zero(channel, data):
    lane = data.draw(extreme_lanes(channel))
    volume = data.draw(st.sampled_from(EXTREMES))
    params = lakes.SMALL | {"vpin": {"bucket_volume": volume, "window": 4, "min_buckets": 1}}
    for name, values in lakes.run_engine(lakes.graph_of(channel, params=params), lane).items():
        assert not np.isinf(values).any(), name
        assert not (np.signbit(values) & (values == 0)).any(), name
        assert (lakes.bits(values)[np.isnan(values)] == lakes.bits(math.nan)).all(), f"{name}: more than one NaN"


@only_compiled
@given(st.data())
@settings(max_examples=30)
def test_extreme_values_obey_cuts_too(data):
    lane, graph = data.draw(extreme_lanes("orderbook")), graph_of("orderbook")
    whole = lakes.run_engine(graph, lane)
    assert_same_bits(lakes.run_engine(graph, lane, range(len(lane)), reload=True), whole)


@only_compiled
def test_extreme_values_through_compute():
    rows = [
        snapshot(MIDNIGHT + i * SECOND, [(EXTREMES[i], s)], [(EXTREMES[i + 1], s)], nonce=i)
        for i, s in enumerate(EXTREMES[:-1])
    ]
    table = tickstate.compute(book_table(rows), [*lakes.features_of("orderbook")])
    for name, values in lakes.columns_of(table).items():
        if not isinstance(values, list):
            assert not np.isinf(values).any(), name
            assert not (np.signbit(values) & (values == 0)).any(), name


# ---- the kernels of order and of repeated rows


@st.composite
def keys(draw):
    small = st.lists(st.tuples(*[st.integers(0, 2)] * 3), max_size=12)
    return [np.array(column, np.int64) for column in zip(*draw(small), strict=True)] or [np.empty(0, np.int64)] * 3


@given(keys())
def test_first_disorder(columns):
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    found = np.empty(1, np.int64)
    order.first_disorder(*columns, found)
    assert found[0] == next((i for i in range(1, len(rows)) if rows[i] < rows[i - 1]), len(rows))


@given(st.lists(st.integers(-5, 5), max_size=20), st.integers(0, 20))
def test_scan_times_folds_over_batches(times, cut):
    carry = np.array([99, -99, 0], np.int64)
    for part in (times[:cut], times[cut:]):
        order.scan_times(np.array(part, np.int64), carry)
    late = sum(t < max(times[:i]) for i, t in enumerate(times) if i)
    assert carry.tolist() == [min([99, *times]), max([-99, *times]), late]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_find_repeats(pairs):
    pairs.sort(key=lambda pair: pair[0])
    times, hashes = (np.array([p[c] for p in pairs], np.int64) for c in (0, 1))
    first = np.empty(len(pairs), np.int64)
    order.find_repeats(times, hashes, first)
    assert first.tolist() == [pairs.index(pair) for pair in pairs]


def test_find_repeats_where_slots_collide():
    """More distinct hashes of one time than half the table: some must share a slot."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(-(2**62), 2**62, 500)
    hashes = np.concatenate((hashes, hashes[::-1]))
    first = np.empty(1000, np.int64)
    order.find_repeats(np.zeros(1000, np.int64), hashes, first)
    assert first.tolist() == [*range(500), *range(499, -1, -1)]


def test_equal_hashes_are_no_proof():
    offsets, bits = np.array([0, 2, 4, 6, 7], np.int64), np.array([1, 2, 1, 2, 1, 3, 1], np.int64)
    same = np.ones(4, np.uint8)
    order.confirm_repeats(np.zeros(4, np.int64), offsets, bits, same)
    assert same.tolist() == [1, 1, 0, 0]  # the same, another value, another length


@given(st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=1, max_size=8))
def test_equal_lists_have_equal_hashes(lists):
    offsets = np.concatenate(([0], np.cumsum([len(x) for x in lists]))).astype(np.int64)
    bits = np.array([v for x in lists for v in x], np.int64)
    hashes = np.zeros(len(lists), np.int64)
    order.hash_lists(offsets, bits, hashes)
    for i, one in enumerate(lists):
        for j, other in enumerate(lists):
            assert (hashes[i] == hashes[j]) == (one == other)


def test_the_naive_reference_puts_rows_in_the_same_order():
    rows = [
        snapshot(MIDNIGHT, [(99.0, 1.0)], [(101.0, 1.0 + i)], nonce=n, timestamp=5 - i)
        for i, n in enumerate((2, None, 1))
    ]
    table = tickstate.compute(book_table(rows), "total_ask_depth")
    assert table["total_ask_depth"].to_pylist() == [3.0, 2.0, 1.0]
    same = [row | {"timestamp": 5} for row in rows]
    table = tickstate.compute(book_table(same), "total_ask_depth")
    assert table["total_ask_depth"].to_pylist() == [2.0, 3.0, 1.0]  # a null nonce is 0
    assert [row["asks"][0]["size"] for row in naive.order(lakes.to_naive(book_table(same)))] == [2.0, 3.0, 1.0]
