"""`sample` and `fill_gaps` (FEATURES.md 6): every rule against a slow reference, through lakes and in memory."""

import itertools
import math
import shutil

import lakes
import numpy as np
import pytest
import tapes
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import HOUR, MIDNIGHT, SECOND, book_table, ln
from tapes import SYMBOL, read, touch, trade

import tickstate
from tickstate.features.base import Settings, parse_duration
from tickstate.features.sampling import FLOWS, Sampler
from tickstate.kernels import sample as kernels

S = SECOND
ADDED = ("sample_ts", "snapshot_count", "data_staleness_ms")
FLOW = {"ofi", "mlofi", *(f"ofi_L{i}" for i in range(1, 10)), "signed_trade_vol", "log_return"}


# ---- the reference


def sampled(rows, interval, fill_gaps=False, max_staleness=300 * S, until=None):
    """Section 6, from silver rows (dicts, times in us) that were not sampled: one row an interval, as the page says.

    `until`: stamps after it are not made.
    """
    groups = {}
    for row in rows:
        if row["book_flag"] == "ok":
            groups.setdefault(-(-row["capture_ts"] // interval), []).append(row)  # (k f, (k + 1) f] has number k + 1
    found, last = [], None
    for k in sorted(groups):
        found += repeats(last, k, interval, max_staleness) if fill_gaps and last else []
        sums = {}
        for name in FLOW & {*rows[0]}:
            values = [row[name] for row in groups[k] if row[name] is not None]
            sums[name] = math.fsum(values) if values else None
        last = stamped(groups[k][-1] | sums, k * interval, len(groups[k]))
        found.append(last)
    if fill_gaps and last:
        found += repeats(last, until // interval + 1, interval, max_staleness)
    return found


def stamped(row, stamp, count):
    staleness = (stamp - row["capture_ts"]) / 1000
    return row | {"sample_ts": stamp, "snapshot_count": count, "data_staleness_ms": staleness}


def repeats(last, before, interval, max_staleness):
    stamps = range(last["sample_ts"] + interval, before * interval, interval)
    zeros = dict.fromkeys(FLOW & {*last}, 0.0)
    return [stamped(last | zeros, t, 0) for t in stamps if t - last["capture_ts"] <= max_staleness]


def numbered(rows):
    """With the partition columns and row_id of each stamp's hour."""
    counts, found = {}, []
    for row in rows:
        hour = row["sample_ts"] // HOUR
        found.append(row | lakes.hour_parts(row["sample_ts"]) | {"row_id": counts.get(hour, 0)})
        counts[hour] = counts.get(hour, 0) + 1
    return found


def assert_rows(got, want):
    """Equal, sums to 1e-12."""
    assert [row["sample_ts"] for row in got] == [row["sample_ts"] for row in want]
    for one, other in zip(got, want, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if name in FLOW and value is not None and other[name] is not None:
                assert value == pytest.approx(other[name], rel=1e-12, abs=1e-12), name
            else:
                assert value == other[name], name


def test_the_flows_are_those_of_the_page():
    columns = {name for f in lakes.features_of("orderbook").values() for name in f.names}
    assert {name for name in columns if FLOWS.fullmatch(name)} == FLOW


# ---- in memory


def both(book, tape=(), features=None, **run):
    """The sampled rows, and what the reference makes of the rows that are not."""
    tables = [book_table(book)], {"trades": lakes.bronze_table("trades", tape), "features": features}
    every = tapes.to_rows(tickstate.compute(*tables[0], **tables[1]))
    interval = parse_duration(run["sample"])
    config = {"run": run}
    stale = run.get("max_staleness", 300) * S
    until = (book[-1]["capture_ts"] // HOUR + 2) * HOUR - 1
    if "max_staleness" in run:
        alone = {"run": {"max_staleness": run["max_staleness"]}}
        every = tapes.to_rows(tickstate.compute(*tables[0], **tables[1], config=alone))
    got = tapes.to_rows(tickstate.compute(*tables[0], **tables[1], config=config))
    return got, numbered(sampled(every, interval, run.get("fill_gaps", False), stale, until))


@given(
    lakes.books(max_rows=14, max_levels=2),
    tapes.trades(max_rows=12, ids=False),
    st.sampled_from(("1s", "500ms", "5s", "1m", "3m", "1h")),
    st.booleans(),
)
@settings(max_examples=60)
def test_samples_are_those_of_the_reference(book, tape, sample, fill_gaps):
    book = [row | {"nonce": i} for i, row in enumerate(lakes.ordered(book))]
    features = ["mid_price", "ofi", "mlofi", "ofi_L1", "signed_trade_vol", "log_return", "trade_vol_5s", "rv_60s"]
    got, want = both(book, tape, features, sample=sample, fill_gaps=fill_gaps)
    assert_rows(got, want)


def test_every_column_is_the_last_rows_but_the_flows():
    rng = np.random.default_rng(1)
    book = lakes.ordered(lakes.random_book(rng, 120, gap=0.3, levels=4))
    got, want = both(book, lakes.random_tape(rng, 60, gap=0.6), sample="1s")
    assert len(got[0]) > 150
    assert_rows(got, want)
    assert sum(row["snapshot_count"] for row in got) == sum(row["book_flag"] == "ok" for row in tapes.to_rows(
        tickstate.compute(book_table(book), "mid_price")))  # fmt: skip


def stamps(times, **run):
    """(stamp, capture_ts, count) of the samples of snapshots at some times after midnight, in seconds."""
    book = [touch(MIDNIGHT + round(t * S), 100 + i, nonce=i) for i, t in enumerate(times)]
    found = tapes.to_rows(tickstate.compute(book_table(book), "mid_price", config={"run": run}))
    seconds = [((row["sample_ts"] - MIDNIGHT) / S, (row["capture_ts"] - MIDNIGHT) / S) for row in found]
    return [(*pair, row["snapshot_count"]) for pair, row in zip(seconds, found, strict=True)]


def test_an_interval_holds_its_end_and_not_its_beginning():
    assert stamps([0, 0.000001, 0.5, 1, 1.000001, 2], sample="1s") == [(0, 0, 1), (1, 1, 3), (2, 2, 2)]


def test_half_seconds():
    assert stamps([0.25, 0.5, 0.75, 1.75], sample="500ms") == [(0.5, 0.5, 2), (1, 0.75, 1), (2, 1.75, 1)]


def test_several_rows_of_the_stamps_time():
    assert stamps([0.5, 1, 1, 1], sample="1s") == [(1, 1, 4)]


def test_flows_are_summed_and_the_rest_is_the_last_rows():
    book = [touch(MIDNIGHT + round(t * S), 100, 1.0 + t, nonce=i) for i, t in enumerate((0.25, 0.5, 0.75, 1, 1.5))]
    tape = [trade(MIDNIGHT + round(t * S), a) for t, a in ((0.1, 1.0), (0.5, 2.0), (0.6, 4.0), (1, 8.0), (1.1, 16.0))]
    table = lakes.bronze_table("trades", tape)
    found = tickstate.compute(
        book_table(book), ["ofi", "signed_trade_vol", "ofi_sum_5s"], trades=table, config={"run": {"sample": "1s"}}
    )
    assert found["ofi"].to_pylist() == [0.75, 0.5]
    assert found["signed_trade_vol"].to_pylist() == [14.0, 16.0]  # none of the first row: it has no previous one
    assert found["ofi_sum_5s"].to_pylist() == [0.75, 1.25]
    assert found["snapshot_count"].to_pylist() == [4, 1]
    assert found["data_staleness_ms"].to_pylist() == [0.0, 500.0]


def test_flows_unknown_in_every_row_are_unknown():
    found = tickstate.compute(book_table([touch(MIDNIGHT)]), ["ofi", "log_return"], config={"run": {"sample": "1s"}})
    assert pick(found, "ofi", "log_return", "snapshot_count") == (None, None, 1)


def pick(table, *names):
    (row,) = table.to_pylist()
    return tuple(row[name] for name in names)


def test_flagged_rows_are_not_kept_and_not_counted():
    book = [touch(MIDNIGHT + k * S // 4, nonce=k) for k in range(1, 10)]
    for k in (3, 4, 5, 6, 7, 8):
        book[k - 1] |= {"bids": []}
    found = tickstate.compute(book_table(book), "mid_price", config={"run": {"sample": "1s"}})
    assert found["snapshot_count"].to_pylist() == [2, 1]
    assert found["book_flag"].to_pylist() == ["ok", "ok"]
    assert found["data_staleness_ms"].to_pylist() == [500.0, 750.0]


# ---- gaps


def test_gaps_are_filled_up_to_max_staleness():
    """A repeat is at most max_staleness after the row it repeats, to the microsecond."""
    run = {"sample": "1s", "fill_gaps": True, "max_staleness": 3}
    assert stamps([0.5, 10], **run)[:4] == [(1, 0.5, 1), (2, 0.5, 0), (3, 0.5, 0), (10, 10, 1)]
    assert [s for s, _, n in stamps([1, 10], **run) if not n] == [2, 3, 4, 11, 12, 13]
    assert [s for s, _, n in stamps([1.000001, 10], **run) if not n] == [3, 4, 11, 12, 13]
    assert [s for s, _, n in stamps([0.999999, 10], **run) if not n] == [2, 3, 11, 12, 13]


def test_without_fill_gaps_empty_intervals_are_not_there():
    assert stamps([0.5, 10], sample="1s") == [(1, 0.5, 1), (10, 10, 1)]


def test_a_filled_interval_repeats_all_but_the_flows():
    book = [touch(MIDNIGHT + S // 2, 100), touch(MIDNIGHT + S, 101), touch(MIDNIGHT + 4 * S, 102)]
    tape = [trade(MIDNIGHT + S // 2 + 1, 2.0)]
    found = tickstate.compute(
        book_table(book), ["keys", "mid_price", "ofi", "log_return", "signed_trade_vol", "trade_vol_5s"],
        trades=lakes.bronze_table("trades", tape), config={"run": {"sample": "1s", "fill_gaps": True}},
    ).slice(0, 4)  # fmt: skip
    assert found["mid_price"].to_pylist() == [101.0, 101.0, 101.0, 102.0]
    assert found["trade_vol_5s"].to_pylist() == [2.0] * 4
    assert found["signed_trade_vol"].to_pylist() == [2.0, 0.0, 0.0, 0.0]
    assert found["log_return"].to_pylist() == [ln(101 / 100), 0.0, 0.0, ln(102 / 101)]
    assert found["ofi"].to_pylist()[1:3] == [0.0, 0.0]
    assert found["snapshot_count"].to_pylist() == [2, 0, 0, 1]
    assert found["data_staleness_ms"].to_pylist() == [0.0, 1000.0, 2000.0, 0.0]
    assert found["row_id"].to_pylist() == [0, 1, 2, 3]


def test_a_gap_of_hours_is_filled_through(tmp_path):
    """Where max_staleness is longer than an hour, the hours between, and after the last row, are filled too."""
    book = [touch(MIDNIGHT + 30 * 60 * S)]
    run = {"sample": "30m", "fill_gaps": True, "max_staleness": 3 * 3600}
    want = [1800 * k for k in range(1, 8)]
    assert [s for s, *_ in stamps([1800], **run)] == want
    lake = tapes.write(tmp_path, {("orderbook", SYMBOL): book})
    rows = read(tapes.run_every_way(lake, config={"run": run}))
    assert [(row["sample_ts"] - MIDNIGHT) // S for row in rows] == want


# ---- lakes


def lake_of(tmp_path, times, tape=(), **run):
    """A lake of snapshots at some seconds after midnight, computed every way; the rows of silver."""
    book = [touch(MIDNIGHT + round(t * S), 100 + i % 7, 1.0 + i, nonce=i) for i, t in enumerate(times)]
    lake = tapes.write(tmp_path, {("orderbook", SYMBOL): book, ("trades", SYMBOL): tape})
    return tapes.run_every_way(lake, config={"run": run})


def partition_of(rows):
    return [(row["day"], row["hour"]) for row in rows]


def test_a_row_at_exactly_the_hours_end_is_the_next_hours_first(tmp_path):
    """It lies in the next hour's bronze, its interval is this one's last, and its stamp is the next hour's."""
    whole = lake_of(tmp_path, [3598.5, 3599.5, 3600, 3600.5, 7200], sample="1s")
    rows = read(whole)
    assert [(r["sample_ts"] - MIDNIGHT) / S for r in rows] == [3599, 3600, 3601, 7200]
    assert partition_of(rows) == [(9, 0), (9, 1), (9, 1), (9, 2)]
    assert [r["snapshot_count"] for r in rows] == [1, 2, 1, 1]
    assert [r["row_id"] for r in rows] == [0, 0, 1, 0]
    for row in rows:
        assert row in read(whole, t=row["sample_ts"])


def test_the_last_interval_of_an_hour_is_the_next_partitions(tmp_path):
    """Also where the next hour has no bronze at all."""
    whole = lake_of(tmp_path, [3598.5, 3599.25, 3599.5], [trade(MIDNIGHT + 3598 * S, 2.0)], sample="1s")
    assert [r["sample_ts"] - MIDNIGHT for r in read(whole, t=MIDNIGHT)] == [3599 * S]
    (row,) = read(whole, t=MIDNIGHT + HOUR)
    assert (row["sample_ts"] - MIDNIGHT, row["hour"], row["snapshot_count"]) == (HOUR, 1, 2)
    assert (row["capture_ts"] - MIDNIGHT, row["data_staleness_ms"]) == (3599.5 * S, 500.0)
    assert row["signed_trade_vol"] == 0.0


def test_an_interval_across_midnight(tmp_path):
    whole = lake_of(tmp_path, [-2.5, -1.5, -0.5, 0], sample="2s")
    assert partition_of(read(whole)) == [(8, 23), (9, 0)]
    assert [row["ofi"] for row in read(whole)][1] == pytest.approx(sum_of_flows([-2.5, -1.5, -0.5, 0])[1:].sum())


def sum_of_flows(times):
    book = [touch(MIDNIGHT + round(t * S), 100 + i % 7, 1.0 + i, nonce=i) for i, t in enumerate(times)]
    return lakes.floats(tickstate.compute(book_table(book), "ofi")["ofi"])


def test_an_interval_of_an_hour(tmp_path):
    whole = lake_of(tmp_path, range(-3000, 9000, 250), sample="1h")
    rows = read(whole)
    assert [(r["sample_ts"] - MIDNIGHT) / HOUR for r in rows] == [0, 1, 2, 3]
    assert [r["snapshot_count"] for r in rows] == [13, 14, 14, 7]
    assert rows[1]["ofi"] == pytest.approx(sum_of_flows(range(-3000, 9000, 250))[13:27].sum())


@given(st.integers(0, 2**32), st.sampled_from(("1m", "5m", "1s", "1h")), st.booleans())
@settings(max_examples=8)
def test_sampled_partitions_alone_are_those_of_the_whole(tmp_path_factory, seed, sample, fill_gaps):
    """Byte for byte, and the rows are the reference's, from rows that were not sampled."""
    rng = np.random.default_rng(seed)
    gap = 2.0 if sample == "1s" else 90.0
    start = MIDNIGHT - 4 * S if sample == "1s" else MIDNIGHT - 4000 * S
    times = start + np.cumsum((rng.exponential(gap, 60) * S).astype(np.int64))
    times[::7] = times[::7] // (60 * S) * 60 * S
    book = lakes.random_book(rng, 60, start, gap, levels=2)
    for row, t in zip(book, sorted(times.tolist()), strict=True):
        row |= {"capture_ts": t, "timestamp": t // 1000}
    lake = tmp_path_factory.mktemp("lake")
    rows_of = {("orderbook", SYMBOL): book, ("trades", SYMBOL): lakes.random_tape(rng, 60, start, gap)}
    tapes.write(lake, rows_of)
    run = {"sample": sample, "fill_gaps": fill_gaps}
    features = ["keys", "mid_price", "ofi", "signed_trade_vol", "ofi_sum_60s", "log_return"]
    got = read(tapes.run_every_way(lake, features=features, config={"run": run}))
    tapes.run(lake, lake / "every", features=features)
    until = (max(times) // HOUR + 2) * HOUR - 1
    assert_rows(got, numbered(sampled(read(lake / "every"), parse_duration(sample), fill_gaps, until=until)))


def test_changing_sample_makes_partitions_stale(tmp_path):
    """On, another interval, gaps filled, off again: each time all is computed, and gives what a fresh target gets."""
    book = [touch(MIDNIGHT + HOUR - 100 * S + k * 20 * S, 100 + k % 3) for k in range(10)]
    lake = tapes.write(tmp_path, {("orderbook", SYMBOL): book})
    for run in ({}, {"sample": "1s"}, {"sample": "1m"}, {"sample": "1m", "fill_gaps": True}, {}):
        summary = tapes.run(lake, config={"run": run})
        assert len(summary.computed) == summary.partitions
        assert tapes.run(lake, config={"run": run}).computed == []
        fresh = lake / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        tapes.run(lake, fresh, config={"run": run})
        assert tapes.parts(fresh).items() <= tapes.parts(lake / "silver").items()


def test_sampling_off_leaves_no_sampled_partition_behind(tmp_path):
    """The hour after the last one has rows only where samples are taken: without, no reader may find it."""
    lake = tapes.write(tmp_path, {("orderbook", SYMBOL): [touch(MIDNIGHT + HOUR - S // 2)]})
    tapes.run(lake, config={"run": {"sample": "1s"}})
    tapes.run(lake)
    rows = read(lake / "silver")
    assert len(rows) == 1
    assert "sample_ts" not in rows[0]


def test_other_channels_are_not_sampled(tmp_path):
    tape, quotes = ([f(MIDNIGHT + k * S // 4) for k in range(9)] for f in (trade, tapes.quote))
    lake = tapes.write(tmp_path, {("trades", SYMBOL): tape, ("ticker", SYMBOL): quotes})
    tapes.run(lake)
    summary = tapes.run(lake, config={"run": {"sample": "1s"}})
    assert summary.computed == []
    assert len(read(lake / "silver", "trades")) == len(read(lake / "silver", "ticker")) == 9


def test_off_by_default(tmp_path):
    lake = tapes.write(tmp_path, {("orderbook", SYMBOL): [touch(MIDNIGHT + k * S // 4) for k in range(9)]})
    tapes.run(lake)
    rows = read(lake / "silver")
    assert len(rows) == 9
    assert not {*ADDED} & {*rows[0]}


# ---- the configuration


@pytest.mark.parametrize("bad", ["1 s", "1sec", "7s", "0s", 5, 1.5, "", True, None, "-1s", "1S", "1.5s", "2h", "01s",
                                 "s", "1", " 1s", "1s ", "1s\n", "1d", "\u0661s", "25h", ["1s"]])  # fmt: skip
def test_a_bad_duration_is_an_error_that_says_what_to_write(tmp_path, bad):
    lake = tapes.write(tmp_path, {("orderbook", SYMBOL): [touch(MIDNIGHT)]})
    if bad == "":
        tapes.run(lake, config={"run": {"sample": bad}})  # the default, written out
        return
    with pytest.raises(tickstate.TickstateError) as caught:
        tapes.run(lake, config={"run": {"sample": bad}})
    text = str(caught.value)
    assert "sample" in text
    assert repr(bad) in text
    assert "a number and a unit, like" in text or "a divisor of an hour" in text or "a text" in text
    assert not (lake / "silver").exists()


@pytest.mark.parametrize(
    ("good", "microseconds"),
    [("500ms", 500_000), ("1s", S), ("250us", 250), ("90s", 90 * S), ("1m", 60 * S), ("5min", 300 * S), ("1h", HOUR)],
)
def test_a_good_duration(good, microseconds):
    assert parse_duration(good) == microseconds
    assert tickstate.compute(book_table([touch(MIDNIGHT + 1)]), "mid_price", config={"run": {"sample": good}})[
        "data_staleness_ms"
    ].to_pylist() == [(microseconds - 1) / 1000]


def test_fill_gaps_without_sample_is_an_error(tmp_path):
    with pytest.raises(tickstate.TickstateError, match="fill_gaps without sample"):
        tickstate.compute(book_table([touch(MIDNIGHT)]), config={"run": {"fill_gaps": True}})
    with pytest.raises(tickstate.TickstateError, match="fill_gaps"):
        tickstate.compute(book_table([touch(MIDNIGHT)]), config={"run": {"sample": "1s", "fill_gaps": "yes"}})


# ---- the kernel


@pytest.mark.kernels
@given(
    st.lists(st.one_of(st.floats(-10, 10), st.just(math.nan)), max_size=20), st.lists(st.integers(0, 20), max_size=6),
    st.one_of(st.floats(-10, 10), st.just(math.nan)),
)  # fmt: skip
def test_sums_of_groups(values, ends, carried):
    ends = sorted(e for e in ends if e <= len(values))
    carry, out = np.array([carried]), np.empty(len(ends))
    kernels.sum_groups(np.array(values, float), np.array(ends, np.int64), carry, out)
    held, want = [carried], []
    for begin, end in zip([0, *ends], [*ends, len(values)], strict=True):
        held += values[begin:end]
        known = [v for v in held if not math.isnan(v)]
        want.append(math.fsum(known) if known else math.nan)
        held = []
    np.testing.assert_allclose([*out, carry[0]], want, atol=1e-12)


@given(lakes.books(max_rows=10, max_levels=1), st.lists(st.integers(0, 10), max_size=4), st.booleans())
@settings(max_examples=30)
def test_chunks_do_not_show(book, cuts, fill_gaps):
    """The sampler fed in pieces gives the same bits."""
    book = [row | {"nonce": i} for i, row in enumerate(lakes.ordered(book))]
    table = tickstate.compute(book_table(book), ["mid_price", "ofi", "log_return"])
    chosen = Settings(sample="5s", fill_gaps=fill_gaps)
    valid = np.array([flag == "ok" for flag in table["book_flag"].to_pylist()])

    def through(edges):
        sampler = Sampler(chosen, table.schema)
        found = [t for b, e in edges for t in sampler.add(table.slice(b, e - b), valid[b:e])]
        found += sampler.finish(book[-1]["capture_ts"] + 2 * HOUR)
        return [row for t in found for row in t.to_pylist()]

    edges = [0, *sorted(c for c in cuts if c <= len(book)), len(book)]
    assert through(list(itertools.pairwise(edges))) == through([(0, len(book))])
