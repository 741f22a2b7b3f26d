"""Contracts 1 and 3 over two channels: books and trades, cut and started anywhere, give the same bits."""

import itertools

import lakes
import naive
import numpy as np
import pytest
import tapes
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import HOUR, MIDNIGHT, SECOND, SMALL, assert_same_bits, books
from tapes import touch, trade

import tickstate
from tickstate.features.engine import Engine
from tickstate.lake.feed import TradeFeed
from tickstate.lake.tape import trade_rows
from tickstate.runners.assemble import push_joined

S = SECOND


# ---- in memory: the engine and the feed, as the executor drives them


def edges_of(cuts, n):
    return [0, *sorted(c for c in cuts if 0 < c < n), n]


def pieces(values, cuts, n):
    edges = edges_of(cuts, n)
    return [values(b, e) for b, e in itertools.pairwise(edges)]


def columns_of(graph, rows, tape, row_cuts=(), trade_cuts=(), reload=False):
    """The graph over a book cut in chunks, the trades in chunks of their own; a new engine each chunk if `reload`."""
    table = lakes.bronze_table("trades", tape)
    chunks = pieces(lambda b, e: trade_rows(table.slice(b, e - b)), trade_cuts, len(tape))
    lane, engine, feed, found = lakes.Lane("orderbook", rows), Engine(graph), TradeFeed(iter(chunks)), []
    for chunk in pieces(lane.chunk, row_cuts, len(rows)):
        found.append(push_joined(engine, feed, chunk))
        if reload:
            engine = Engine(graph, state=engine.state)
    return {c.name: np.concatenate([values[c.name].data for values in found]) for c in graph.columns}


cuts = st.lists(st.integers(0, 20), max_size=6)


@pytest.mark.kernels
@given(books(max_rows=14, max_levels=3), tapes.trades(max_rows=18, ids=False), cuts, cuts, st.booleans())
@settings(max_examples=30)
def test_any_cut_of_rows_and_trades_gives_the_same_bits(rows, tape, row_cuts, trade_cuts, reload):
    rows, graph = lakes.ordered(rows), lakes.graph_of("orderbook", params=SMALL)
    whole = columns_of(graph, rows, tape)
    assert_same_bits(columns_of(graph, rows, tape, row_cuts, trade_cuts, reload), whole)


@pytest.mark.kernels
@given(books(max_rows=8, max_levels=2), tapes.trades(max_rows=8, ids=False))
@settings(max_examples=15)
def test_state_saved_and_restored_at_every_row(rows, tape):
    rows, graph = lakes.ordered(rows), lakes.graph_of("orderbook", params=SMALL)
    every = columns_of(graph, rows, tape, range(20), range(20), reload=True)
    assert_same_bits(every, columns_of(graph, rows, tape))


@pytest.mark.parametrize("gap", [0.5, 15.0, 90.0])
@pytest.mark.parametrize("name", ["trade_clock", "signed_trade_vol", "trade_windows", "vpin", "kyle_lambda"])
def test_any_cut_gives_the_same_bits_of_a_feature_alone(name, gap):
    """Alone, nothing else keeps trades for it; cut at every row, and at some."""
    rng = np.random.default_rng(round(gap * 10))
    rows = lakes.ordered(lakes.random_book(rng, 60, gap=gap, levels=1))
    tape = lakes.random_tape(rng, 90, gap=gap * 0.7)
    graph = lakes.graph_of("orderbook", name, params=SMALL)
    whole = columns_of(graph, rows, tape)
    assert any((~np.isnan(column)).sum() > 20 for column in whole.values())
    assert_same_bits(columns_of(graph, rows, tape, range(60), range(90), reload=True), whole)
    some = rng.integers(0, 60, 4).tolist()
    assert_same_bits(columns_of(graph, rows, tape, some, some), whole)


@given(books(max_rows=10, max_levels=2), tapes.trades(max_rows=12), st.integers(0, 10))
@settings(max_examples=40)
def test_later_trades_change_nothing_before(rows, tape, n):
    """No look-ahead into the other channel: trades after a row are as if they never were."""
    rows = [row | {"nonce": i} for i, row in enumerate(lakes.ordered(rows))]
    n = min(n, len(rows) - 1)
    until = [one for one in tape if one["capture_ts"] <= rows[n]["capture_ts"]]
    whole, part = (
        tickstate.compute(lakes.book_table(r), trades=lakes.bronze_table("trades", t), config={"features": SMALL})
        for r, t in ((rows, tape), (rows[: n + 1], until))
    )
    assert whole.slice(0, n + 1).equals(part)


# ---- symmetry


def mirrored(rows, top=40_000.0):
    """Bids and asks change places about top / 2: exact, prices being whole numbers."""

    def side(levels):
        return levels and [(top - level["price"], level["size"]) for level in levels]

    return [row | {"bids": side(row["asks"]), "asks": side(row["bids"])} for row in rows]


FLIP = ("depth_imbalance", "total_imbalance", "ofi", "mlofi", "signed_", "tfi_")
STAY = ("trade_", "vpin", "book_history_s")


@given(books(tick=1.0, faults=(), max_rows=12), tapes.trades(max_rows=14))
@settings(max_examples=50)
def test_a_mirrored_book_and_tape(rows, tape):
    """Flow and imbalance change sign, volume and toxicity do not."""
    rows = lakes.ordered(rows)
    swapped = [one | {"side": {"buy": "sell", "sell": "buy"}.get(one["side"])} for one in tape]
    here, there = (
        lakes.columns_of(
            tickstate.compute(lakes.book_table(r), trades=lakes.bronze_table("trades", t), config={"features": SMALL})
        )
        for r, t in ((rows, tape), (mirrored(rows), swapped))
    )
    flips = [n for n in here if n.startswith(FLIP) and not n.startswith("ofi_beta")]
    stays = [n for n in here if n.startswith(STAY)]
    assert len(flips) == 4 + 1 + 10 + 5 + 1 + 5 + 1 + 5 + 5
    assert len(stays) == 2 + 10 + 2 + 1
    for name in flips:
        np.testing.assert_array_equal(there[name], -here[name], err_msg=name)
    for name in stays:
        np.testing.assert_array_equal(there[name], here[name], err_msg=name)


@given(tapes.trades(max_rows=14))
def test_a_mirrored_tape(tape):
    swapped = [one | {"side": {"buy": "sell", "sell": "buy"}.get(one["side"])} for one in tape]
    here, there = (
        lakes.columns_of(tickstate.compute(lakes.bronze_table("trades", t), channel="trades")) for t in (tape, swapped)
    )
    np.testing.assert_array_equal(there["signed_volume"], -here["signed_volume"])
    np.testing.assert_array_equal(there["is_buy"], 1 - here["is_buy"])
    for h in (60, 300, 900):
        np.testing.assert_allclose(there[f"buy_ratio_{h}s"], 1 - here[f"buy_ratio_{h}s"], atol=1e-15)
        np.testing.assert_array_equal(there[f"volume_{h}s"], here[f"volume_{h}s"])


# ---- in a lake: any start, any file, any way


@st.composite
def lakes_of_hours(draw):
    """Three channels over three hours about midnight, from a seed: dense, sparse, or with holes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    start = MIDNIGHT - HOUR - draw(st.sampled_from((0, 1, 200, 299, 300, 1000))) * S
    gap, trade_gap = draw(st.sampled_from((60.0, 200.0, 290.0))), draw(st.sampled_from((20.0, 150.0, 280.0)))
    n = round(2.4 * 3600 / gap)
    book = lakes.random_book(rng, n, start, gap, levels=3)
    tape = lakes.random_tape(rng, round(2.2 * 3600 / trade_gap), start - 500 * S, trade_gap)
    for i, one in enumerate(tape):
        one["trade_id"] = [str(i), str(i), None, f"r{i % 3}"][int(rng.integers(4))]
    quotes = [
        tapes.quote(one["capture_ts"], one["price"], one["price"] + 0.01 * int(rng.integers(0, 3)), i % 5, 2.0)
        for i, one in enumerate(tape)
    ]
    hole = draw(st.sampled_from((None, ("trades", -1), ("trades", 0), ("orderbook", 0), ("ticker", -1))))
    found = {"orderbook": book, "trades": tape, "ticker": quotes}
    if hole:
        channel, hour = hole
        found[channel] = [row for row in found[channel] if row["capture_ts"] // HOUR != MIDNIGHT // HOUR + hour]
    return found, rng


def write(lake, rows_of, rng=None):
    """A file an hour, or, with `rng`, each hour's rows cut at random into files whose names are in order."""
    for channel, rows in rows_of.items():
        edges = [0, len(rows)] if rng is None else [0, *sorted(rng.integers(0, len(rows) + 1, 4).tolist()), len(rows)]
        for i, (begin, end) in enumerate(itertools.pairwise(edges)):
            tapes.write(lake, {(channel, tapes.SYMBOL): rows[begin:end]}, name=f"{i}.parquet")
    return lake


CONFIGS = (
    {"features": SMALL},
    {"features": SMALL, "run": {"max_staleness": 250}, "lanes": {"demo/A-B": {"trades_max_gap": 200}}},
    {"features": SMALL, "run": {"sample": "1m"}},
    {"features": SMALL, "run": {"sample": "20s", "fill_gaps": True}},
)


@given(found=lakes_of_hours(), config=st.sampled_from(CONFIGS))
@settings(max_examples=10)
def test_any_start_any_runner_any_file_gives_the_same_bytes(tmp_path_factory, found, config):
    rows_of, rng = found
    lake = write(tmp_path_factory.mktemp("lake"), rows_of)
    whole = tapes.run_every_way(lake, config=config)
    cut = write(tmp_path_factory.mktemp("cut"), rows_of, rng)
    tapes.run(cut, config=config)
    assert tapes.parts(cut / "silver") == tapes.parts(whole)
    for start in (-1, 0, 1):
        later = tmp_path_factory.mktemp("later")
        try:
            tapes.run(lake, later, start=tapes.hour_text(MIDNIGHT // HOUR + start), config=config)
        except tickstate.TickstateError as error:
            assert "no bronze hour" in str(error)
        found = tapes.parts(later)
        assert found.items() <= tapes.parts(whole).items()


def test_processes_give_the_bytes_of_this_one(tmp_path):
    """Once with a real pool, where hours of a lane are computed in several processes."""
    rng = np.random.default_rng(5)
    tape = lakes.random_tape(rng, 200, MIDNIGHT - 2 * HOUR, 60.0)
    rows = {"orderbook": lakes.random_book(rng, 150, MIDNIGHT - 2 * HOUR, 90.0, levels=3), "trades": tape}
    rows["ticker"] = [tapes.quote(one["capture_ts"], one["price"], one["price"] + 0.01) for one in tape]
    write(tmp_path, rows, rng)
    config = CONFIGS[0]
    tapes.run(tmp_path, tmp_path / "one", config=config)
    tapes.run(tmp_path, tmp_path / "many", config=config, runner="batch", workers=2)
    assert len(tapes.parts(tmp_path / "one")) == 10
    assert tapes.parts(tmp_path / "many") == tapes.parts(tmp_path / "one")


def test_two_tasks_in_one_process_leave_each_others_files_alone(tmp_path):
    """An executor of threads, as a Dask worker is one: records of two hours of a day are written side by side."""
    from tickstate.lake.files import replacing

    with replacing(tmp_path / "hour=1.json", "commit") as one:
        one.write_text("1")
        with replacing(tmp_path / "hour=2.json", "commit") as two:
            two.write_text("2")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"hour=1.json": "1", "hour=2.json": "2"}


# ---- nothing lost, nothing counted twice


def test_a_days_volume_is_that_of_its_tape(tmp_path):
    """By partitions of the tape, and by the rows of a book that is never stale: sided trades, lots of 1/8."""
    rng = np.random.default_rng(6)
    times = np.sort(rng.integers(MIDNIGHT - 2 * HOUR, MIDNIGHT + 24 * HOUR, 3000)).tolist()
    times += [MIDNIGHT + k * HOUR + e for k in range(24) for e in (-1, 0, 0, 1)]
    tape = [
        trade(t, int(rng.integers(1, 80)) / 8, ("buy", "sell")[int(rng.integers(2))], str(i))
        for i, t in enumerate(sorted(times))
    ]
    repeats = [one | {"price": 1.0} for one in tape[::50]]
    tape += repeats
    book = [touch(t, 100 + i % 3) for i, t in enumerate(range(MIDNIGHT - HOUR, MIDNIGHT + 25 * HOUR, 97 * S))]
    lake = tapes.write(tmp_path, {("orderbook", "A-B"): book, ("trades", "A-B"): tape})
    summary = tapes.run(lake, config={"lanes": {"demo/A-B": {"trades_max_gap": 1e6}}})
    assert summary.counters["duplicates"] == len(repeats)
    day = range(MIDNIGHT, MIDNIGHT + 24 * HOUR)
    once = [one for one in naive.drop_duplicates(naive.order(tape)) if one["capture_ts"] in day]
    volume = sum(one["amount"] for one in once)
    rows = [row for row in tapes.read(lake / "silver", "trades") if row["capture_ts"] in day]
    assert sum(row["amount"] for row in rows) == volume
    by_hour = [tapes.read(lake / "silver", "trades", t=MIDNIGHT + k * HOUR) for k in range(24)]
    assert sum(abs(row["signed_volume"]) for hour in by_hour for row in hour) == volume
    seen = tapes.read(lake / "silver")
    first, last = seen[0]["capture_ts"], seen[-1]["capture_ts"]
    between = [one for one in naive.drop_duplicates(naive.order(tape)) if first < one["capture_ts"] <= last]
    assert sum(row["signed_trade_vol"] for row in seen[1:]) == sum(naive.signed_amount(one) for one in between)
    assert None not in {row["signed_trade_vol"] for row in seen[1:]}
