"""Quality counters (issue 3): counted by hand on a small lake, in records and summaries, however a run was split."""

from collections import Counter

import lakes
import numpy as np
import pytest
import tapes
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import HOUR, MIDNIGHT, SECOND
from tapes import SYMBOL, quote, record, touch, trade

from tickstate.kernels.book import FLAGS

S = SECOND


def counters(lake, channel="orderbook", t=MIDNIGHT):
    return record(lake / "silver", t, channel)["counters"]


def pick(found, *names):
    return tuple(found[name] for name in names)


def some(lake, times, tape=(), **run):
    """Counters of the hour after midnight, of snapshots at some seconds after it."""
    book = [touch(MIDNIGHT + round(t * S), nonce=i) for i, t in enumerate(times)]
    tapes.write(lake, {("orderbook", SYMBOL): book, ("trades", SYMBOL): tape})
    tapes.run(lake, config={"run": run} if run else None)
    return counters(lake)


def test_rows_by_flag_and_duplicates(tmp_path):
    rows = [touch(MIDNIGHT + k * S, nonce=k) for k in range(len(lakes.FAULTS) + 2)]
    spoiled = [lakes.spoil(row, fault) for row, fault in zip(rows, lakes.FAULTS, strict=False)]
    rows = [*spoiled, *rows[len(spoiled) :]]
    rows = sorted([*rows, rows[0], rows[-1], rows[-1]], key=lambda row: row["capture_ts"])
    tapes.write(tmp_path, {("orderbook", SYMBOL): rows})
    summary = tapes.run(tmp_path)
    found = counters(tmp_path)
    assert found["rows"] == len(lakes.FAULTS) + 2
    assert found["duplicates"] == 3
    want = {"ok": 2, "empty": 2, "one_sided": 2, "bad_value": 5, "unsorted": 1, "crossed": 1, "locked": 1}
    assert {name: found[f"flag_{name}"] for name in FLAGS} == want
    written = Counter(row["book_flag"] for row in tapes.read(tmp_path / "silver"))
    assert written == want
    assert summary.by_channel == {"orderbook": found}
    assert summary.counters == found
    assert summary.as_dict()["channels"] == {"orderbook": found}


def test_invalid_trades_and_quotes(tmp_path):
    tape = [trade(MIDNIGHT, 1.0, trade_id="1"), trade(MIDNIGHT + S, 0.0), trade(MIDNIGHT + S, price=None)]
    tape += [trade(MIDNIGHT + 300 * S, trade_id="1"), trade(MIDNIGHT + 700 * S, trade_id="1")]
    quotes = [quote(MIDNIGHT), quote(MIDNIGHT), quote(MIDNIGHT + S, ask=99.0), quote(MIDNIGHT + 2 * S, bid_volume=None)]
    tapes.write(tmp_path, {("trades", SYMBOL): tape, ("ticker", SYMBOL): quotes})
    summary = tapes.run(tmp_path)
    names = ("rows", "invalid", "duplicates", "gaps", "seconds_covered")
    assert pick(counters(tmp_path, "trades"), *names) == (4, 2, 1, 1, 0)
    assert pick(counters(tmp_path, "ticker"), *names) == (3, 1, 1, 0, 2)
    assert "seconds_trades_alive" not in counters(tmp_path, "ticker")
    assert {*summary.by_channel} == {"trades", "ticker"}
    assert summary.counters["rows"] == 7


def test_out_of_order(tmp_path):
    """Rows of a file that stand below one before them."""
    times = (5, 1, 7, 6, 6, 8, 8, 2)
    found = some(tmp_path, times)
    assert pick(found, "out_of_order", "rows", "duplicates") == (4, 8, 0)
    assert [r["capture_ts"] - MIDNIGHT for r in tapes.read(tmp_path / "silver")] == [t * S for t in sorted(times)]


@pytest.mark.parametrize(("gap", "gaps", "covered"), [(299.9, 0, 309), (300, 0, 310), (300.000001, 1, 10)])
def test_gaps_and_covered_seconds(tmp_path, gap, gaps, covered):
    found = some(tmp_path, [0, 10, 10 + gap])
    assert pick(found, "gaps", "seconds_covered") == (gaps, covered)


def test_another_staleness_has_other_gaps(tmp_path):
    found = some(tmp_path, [0, 2, 5, 9.5, 9.75], max_staleness=3)
    assert pick(found, "gaps", "seconds_covered") == (1, 5)


def test_flagged_rows_cover_nothing(tmp_path):
    book = [touch(MIDNIGHT), touch(MIDNIGHT + 200 * S) | {"asks": []}, touch(MIDNIGHT + 400 * S)]
    tapes.write(tmp_path, {("orderbook", SYMBOL): book})
    tapes.run(tmp_path)
    assert pick(counters(tmp_path), "gaps", "seconds_covered") == (1, 0)


def test_seconds_with_trades_alive(tmp_path):
    """Between consecutive snapshots, where trades are alive at the later one."""
    times = [0, 100, 200, 300, 400, 500, 600, 1000, 1100]
    found = some(tmp_path, times, [trade(MIDNIGHT + t * S) for t in (150, 1050)])
    # unknown at 0 and 100; alive at 200 (from 150 on) to 400 (250 s old), not at 500; a gap; alive at 1100
    assert pick(found, "gaps", "seconds_covered", "seconds_trades_alive") == (1, 700, 400)


@pytest.mark.parametrize(("step", "count"), [(499, 0), (500, 0), (501, 2), (5000, 2)])
def test_steps_of_latency(tmp_path, step, count):
    """A clock that jumps, and jumps back: two steps. In either direction, flagged rows too."""
    lags = [3, 3, 3 + step, 3 + step, 3, 3]
    book = [
        touch(MIDNIGHT + (k + 10) * S, timestamp=MIDNIGHT // 1000 + (k + 10) * 1000 - lag, nonce=k)
        for k, lag in enumerate(lags)
    ]
    book[2] |= {"bids": []}
    tapes.write(tmp_path, {("orderbook", SYMBOL): book})
    tapes.run(tmp_path)
    assert counters(tmp_path)["latency_steps"] == count


def test_a_null_timestamp_is_no_step(tmp_path):
    tape = [trade(MIDNIGHT + k * S, timestamp=None if k % 2 else MIDNIGHT // 1000 + k * 1000) for k in range(6)]
    tapes.write(tmp_path, {("trades", SYMBOL): tape})
    tapes.run(tmp_path)
    assert counters(tmp_path, "trades")["latency_steps"] == 0
    tape[4]["timestamp"] += 700
    tapes.write(tmp_path, {("trades", SYMBOL): tape})
    tapes.run(tmp_path)
    assert counters(tmp_path, "trades")["latency_steps"] == 1


def test_an_empty_hour_counts_nothing(tmp_path):
    tapes.write_empty(tmp_path, "trades", MIDNIGHT // HOUR)
    tapes.run(tmp_path)
    assert not any(counters(tmp_path, "trades").values())


def test_a_gap_across_the_hour_boundary_is_a_gap(tmp_path):
    """A hole of 20 minutes about the hour is within neither of the two; it is a gap all the same."""
    book = [touch(MIDNIGHT - t * S) for t in (700, 600)] + [touch(MIDNIGHT + t * S) for t in (600, 700)]
    tapes.write(tmp_path, {("orderbook", SYMBOL): book})
    summary = tapes.run(tmp_path)
    assert summary.counters["gaps"] == 1
    assert summary.counters["seconds_covered"] == 200


def test_what_is_covered_across_the_hour_boundary(tmp_path):
    """A lane with a snapshot every 100 s has no hole: a day of it is covered to its last row, whatever the hour."""
    book = [touch(t, nonce=i) for i, t in enumerate(range(MIDNIGHT - HOUR + 50 * S, MIDNIGHT + HOUR, 100 * S))]
    tapes.write(tmp_path, {("orderbook", SYMBOL): book})
    summary = tapes.run(tmp_path)
    assert pick(summary.counters, "gaps", "seconds_covered") == (0, 7100)


# ---- however the run was split


@given(st.integers(0, 2**32))
@settings(max_examples=5)
def test_counters_do_not_depend_on_the_run(tmp_path_factory, seed):
    """Single, batch over one lane, each hour alone from nothing; chunks of a few rows; other files."""
    rng = np.random.default_rng(seed)
    book = lakes.random_book(rng, 120, MIDNIGHT - 2400 * S, 50.0, levels=2, flagged=0.2)
    for row in book:
        row["timestamp"] -= int(rng.choice((0, 0, 0, 800)))
    book += [dict(row) for row in book[::9]]
    book.sort(key=lambda row: row["capture_ts"])
    tape = lakes.random_tape(rng, 60, MIDNIGHT - 2400 * S, 90.0)
    quotes = [quote(one["capture_ts"], 99 + k % 3, 101 - k % 5, k % 4) for k, one in enumerate(tape)]
    rows_of = {("orderbook", SYMBOL): book, ("trades", SYMBOL): tape, ("ticker", SYMBOL): quotes}
    lake = tapes.write(tmp_path_factory.mktemp("lake"), rows_of)
    whole = tapes.run(lake)
    found = {str(o): o.counters for o in whole.computed}
    assert len(found) >= 6
    total = Counter()
    for one in found.values():
        total.update(one)
    assert whole.counters == dict(total)
    for outcome in whole.computed:
        assert counters(lake, outcome.channel, outcome.hour * HOUR) == outcome.counters
    for hour in sorted({o.hour for o in whole.computed}):
        silver = lake / f"{hour}"
        alone = tapes.run(lake, silver, start=tapes.hour_text(hour), end=tapes.hour_text(hour + 1))
        assert {str(o): o.counters for o in alone.computed} == {k: v for k, v in found.items() if k in
                                                                {str(o) for o in alone.computed}}  # fmt: skip
    cut = tmp_path_factory.mktemp("cut")
    for (channel, symbol), rows in rows_of.items():
        for i in range(4):
            part = rows[i * len(rows) // 4 : (i + 1) * len(rows) // 4]
            tapes.write(cut, {(channel, symbol): part}, name=f"{i}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tickstate.lake.segment.BATCH_ROWS", 3)
        patch.setattr("tickstate.runners.lane.CHUNK_ROWS", 4)
        assert {str(o): o.counters for o in tapes.run(cut).computed} == found


def test_counters_of_a_selection_of_features(tmp_path):
    """They speak of the recording, not of the features."""
    book = [touch(MIDNIGHT + k * 100 * S, nonce=k) for k in (0, 1, 2, 6, 7)]
    tapes.write(tmp_path, {("orderbook", SYMBOL): book, ("trades", SYMBOL): [trade(MIDNIGHT + 150 * S)]})
    one = tapes.run(tmp_path, tmp_path / "all", channel="orderbook").counters
    assert pick(one, "gaps", "seconds_covered", "seconds_trades_alive") == (1, 300, 100)
    assert tapes.run(tmp_path, tmp_path / "one", channel="orderbook", features="mid_price").counters == one
    config = {"run": {"sample": "1m"}}
    assert tapes.run(tmp_path, tmp_path / "sampled", channel="orderbook", config=config).counters == one


def test_up_to_date_partitions_are_not_counted_again(tmp_path):
    tapes.write(tmp_path, {("orderbook", SYMBOL): [touch(MIDNIGHT)]})
    tapes.run(tmp_path)
    assert tapes.run(tmp_path).counters == {}
