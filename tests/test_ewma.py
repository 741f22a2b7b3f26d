"""Unbounded features: the kernel against the page, partitions that form a chain, and how far a late file reaches."""

from __future__ import annotations

import math
import shutil
from base64 import b64decode
from concurrent.futures import Executor, Future
from itertools import pairwise

import bronze
import lakes
import naive
import numpy as np
import pytest
import tapes
from bronze import ALPHA, HOURS
from faults.delivery import FIRST, World, assert_clean, cycle, deliver, differences, tree
from hypothesis import given
from hypothesis import strategies as st
from lakes import HOUR, MIDNIGHT, SECOND, assert_close, assert_same_bits, bits, books

import tickstate
from tickstate.kernels.ewma import EWMA_STATE, decay_flow
from tickstate.runners.plan import make_plan
from tickstate.runners.run import run_batch, run_single
from tickstate.runners.selection import Selection

HALVES = (5.0, 60.0, 900.0)


def naive_decay(times, ofi, mids, halves, limit):
    """Issue 4, item 2: D = 2^(-dt / h); sum D * previous + ofi; mean D * previous + (1 - D) * previous row's mid."""
    out = np.full((2 * len(halves), len(times)), math.nan)
    for k, h in enumerate(halves):
        flow = mean = None
        for i, t in enumerate(times):
            if i == 0 or t - times[i - 1] > limit:
                flow, mean = 0.0, mids[i]
                continue
            d = 2.0 ** (-(t - times[i - 1]) / 1e6 / h)
            flow = d * flow + (0.0 if math.isnan(ofi[i]) else ofi[i])
            mean = d * mean + (1 - d) * mids[i - 1]
            out[k, i], out[len(halves) + k, i] = flow, mean
    return out


def carried(halves=HALVES):
    return np.zeros(1, EWMA_STATE), np.zeros(len(halves)), np.zeros(len(halves))


def decayed(times, ofi, mids, state=None, halves=HALVES, limit=300 * SECOND):
    out = np.empty((2 * len(halves), len(times)))
    decay_flow(times, ofi, mids, 0, *(state or carried(halves)), np.array(halves), limit, out)
    return out


@st.composite
def series(draw):
    steps = st.sampled_from((0, 1, SECOND // 3, SECOND, 7 * SECOND, *((300 * SECOND) + e for e in (-1, 0, 1)), HOUR))
    n = draw(st.integers(1, 25))
    times = MIDNIGHT + np.cumsum([draw(steps) for _ in range(n)])
    ofi = [draw(st.one_of(st.floats(-50, 50), st.just(math.nan))) for _ in range(n)]
    mids = [draw(st.floats(1, 1e5)) for _ in range(n)]
    return times.astype(np.int64), np.array(ofi), np.array(mids)


@pytest.mark.kernels
@given(series())
def test_the_kernel_agrees_with_the_page(data):
    times, ofi, mids = data
    got, want = decayed(*data), naive_decay(times.tolist(), ofi.tolist(), mids.tolist(), HALVES, 300 * SECOND)
    for k, name in enumerate(("flow 5", "flow 60", "flow 900", "mid 5", "mid 60", "mid 900")):
        scale = np.cumsum(np.abs(np.nan_to_num(ofi))) if k < 3 else np.maximum.accumulate(mids)
        assert_close(name, got[k], want[k], 1e-12 * (scale + 1))


@pytest.mark.kernels
@given(series(), st.lists(st.integers(0, 25), max_size=4))
def test_cuts_do_not_show(data, cuts):
    whole, state, parts = decayed(*data), carried(), []
    for first, last in pairwise([0, *sorted(min(c, len(data[0])) for c in cuts), len(data[0])]):
        parts.append(decayed(*(a[first:last] for a in data), state=state))
    np.testing.assert_array_equal(bits(np.concatenate(parts, axis=1)), bits(whole))


@pytest.mark.kernels
def test_a_gap_starts_anew():
    """Exactly max_staleness is none; one microsecond more is: that row is null, and nothing before it counts."""
    times = MIDNIGHT + np.array([0, 300 * SECOND, 600 * SECOND + 1, 600 * SECOND + 1, 605 * SECOND + 1])
    ofi, mids = np.array([7.0, 1.0, 99.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    out = decayed(times, ofi, mids, halves=(5.0,))
    assert np.isnan(out[:, [0, 2]]).all()
    assert out[0, 1] == 1.0 + 0.0
    assert out[1, 1] == 10.0
    assert out[:, 3].tolist() == [2.0, 30.0]  # dt = 0: D = 1
    assert out[:, 4].tolist() == [0.5 * 2 + 3, 0.5 * 30 + 0.5 * 40]


@given(books(max_rows=20), st.lists(st.integers(1, 20), max_size=3))
def test_through_the_engine_against_naive(rows, cuts):
    """With the naive ofi and mid of the valid rows; chunks and engines made from state do not show."""
    graph = lakes.graph_of("orderbook", "ewma", "ofi", "mid_price")
    lane = lakes.Lane("orderbook", lakes.ordered(rows))
    got = lakes.run_engine(graph, lane)
    assert_same_bits(lakes.run_engine(graph, lane, cuts=cuts, reload=True), got)
    valid = np.array([naive.book_flag(r["bids"], r["asks"]) == "ok" for r in lane.rows], bool)
    names = [f"{k}_ewma_{h}s" for k in ("ofi", "mid") for h in (5, 60, 900)]
    for name in names:
        assert np.isnan(got[name][~valid]).all(), name
    want = naive_decay(
        lane.times[valid].tolist(), got["ofi"][valid].tolist(), got["mid_price"][valid].tolist(), HALVES, 300 * SECOND
    )
    for k, name in enumerate(names):
        assert_close(name, got[name][valid], want[k], 1e-9)


def test_off_unless_selected():
    entry = tickstate.default_registry().of_channel("orderbook")["ewma"]
    assert (entry.feature.default, entry.feature.group) == (False, "ewma")
    assert not [n for n in lakes.graph_of("orderbook", "ofi").selected if "ewma" in n]


# ---- partitions form a chain


def make(lake, hole=None, rows=240, hours=4):
    """A lane of some hours; `hole`: no row in these seconds from its beginning."""
    whole = bronze.walk(ALPHA, hours=hours, rows=rows)
    if hole:
        since = (bronze.times(whole) - bronze.START) // SECOND
        whole = whole.filter((since < hole[0]) | (since >= hole[1]))
    bronze.write_lane(lake / "bronze", whole)
    return lake


def run(lake, **options):
    return bronze.run(lake, **{"features": ["ewma", "mid_price"], **options})


def link(lake, hour):
    return bronze.json.loads(bronze.commit(lake, ALPHA, hour).read_text())["chain"]["ewma"]


def test_each_partition_begins_where_the_one_before_ended(tmp_path):
    lake = make(tmp_path)
    assert run(lake).exit_code == 0
    links = [link(lake, hour) for hour in HOURS]
    for before, after in pairwise(links):
        assert after["began"] == before["ended"]
    assert len({x["ended"] for x in links} | {links[0]["began"]}) == 5
    fresh = b"".join(a.tobytes() for a in lakes.features_of("orderbook")["ewma"].new_state())
    assert b64decode(links[0]["began"]) == fresh


def test_hours_one_by_one_in_order_and_never_from_the_beginning(tmp_path, monkeypatch):
    """A later run reads the hour and its lookback, not the lane's beginning."""
    lake, other = make(tmp_path / "a"), make(tmp_path / "b")
    run(lake)
    read = []
    real = tickstate.runners.lane.read_hour
    for i, hour in enumerate(HOURS):
        read.clear()
        shutil.rmtree(other / "silver/_state", ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(
                "tickstate.runners.lane.read_hour",
                lambda good, *a, **k: read.append({s.segment.hour for s in good}) or real(good, *a, **k),
            )
            done = run(other, start=hour, end=HOURS[i + 1] if i < 3 else None)
        assert bronze.computed(done) == [("/".join(ALPHA), hour)]
        first = bronze.START // HOUR
        assert set().union(*read) <= {first + i, first + i - 1}
    assert bronze.parquet(other / "silver") == bronze.parquet(lake / "silver")
    assert tree(other / "silver") == tree(lake / "silver")


def test_a_start_in_the_middle_of_nothing_fails_and_says_why(tmp_path):
    lake = make(tmp_path)
    done = run(lake, start=HOURS[2])
    assert done.exit_code == 1
    assert [str(o).split()[-1] for o in done.failed] == list(HOURS[2:])
    assert HOURS[1] in done.failed[0].error
    assert "ewma" in done.failed[0].error
    assert not bronze.parquet(lake / "silver")
    assert run(lake).exit_code == 0, "and without --start it goes"


def late(lake, second, file="late.parquet"):
    """Three rows that come late, `second` seconds from the lane's beginning."""
    t = bronze.START + second * SECOND
    found = [bronze.row(t + i * SECOND, 480 + i, nonce=i) for i in range(3)]
    bronze.write(lake / "bronze", bronze.table(found), file)


def hours_of(summary):
    return [hour for _, hour in bronze.computed(summary)]


def settled(lake):
    """The lake equals one made from nothing."""
    clean = lake.parent / "clean"
    shutil.copytree(lake / "bronze", clean / "bronze")
    return clean


@pytest.mark.parametrize("runner", ["single", "batch"])
def test_a_late_file_reaches_to_the_next_gap(tmp_path, runner):
    """Late in hour 0. Hour 1 has it in its lookback, hour 2 begins otherwise but ends as before, since a gap lies in
    it: hour 3 stays."""
    lake = make(tmp_path / "lake", hole=(2 * 3600 + 1000, 2 * 3600 + 1400))
    run(lake)
    before = bronze.commit(lake, ALPHA, HOURS[3]).read_bytes()
    late(lake, 3500)
    done = run(lake, runner=runner, workers=2)
    assert hours_of(done) == list(HOURS[:3])
    assert bronze.commit(lake, ALPHA, HOURS[3]).read_bytes() == before
    assert run(lake).computed == []
    clean = settled(lake)
    run(clean)
    assert tree(lake / "silver") == tree(clean / "silver")


@pytest.mark.parametrize(("halves", "reached"), [(5, 2), (900, 4)])
def test_a_late_file_reaches_until_the_bits_converge(tmp_path, halves, reached):
    """Half-lives of 5 s forget an hour entirely; in 900 s three hours are 12 half-lives: still other bits."""
    lake, config = make(tmp_path / "lake"), {"features": {"ewma": {"half_lives": [halves]}}}
    run(lake, config=config)
    late(lake, 600)
    done = run(lake, config=config)
    assert hours_of(done) == list(HOURS[:reached])
    clean = settled(lake)
    run(clean, config=config)
    assert tree(lake / "silver") == tree(clean / "silver")


def test_an_hour_before_the_first(tmp_path):
    """Bronze of an earlier hour comes last: the chain has a new beginning."""
    lake = make(tmp_path / "lake")
    held = bronze.bronze_folder(lake, ALPHA, HOURS[0])
    shutil.move(held, tmp_path / "held")
    run(lake)
    shutil.move(tmp_path / "held", held)
    assert hours_of(run(lake)) == list(HOURS)
    clean = settled(lake)
    run(clean)
    assert tree(lake / "silver") == tree(clean / "silver")


@pytest.fixture(scope="module")
def chained(tmp_path_factory):
    return World(tmp_path_factory.mktemp("chain"), hours=3, seconds=600, features=("ewma",))


@pytest.mark.parametrize("ends", ["open", "complete"])
def test_saved_state_behind_a_chain_that_changed(chained, ends):
    """Late data in hour 0; the run that mends hours 0 and 1 ends before hour 2, which is open (a crash, an --end).

    The state on disk stands in the middle of hour 2, its files are as they were, but it began from another state.
    """
    world, lake, clock = chained, chained.place(f"stale-{ends}"), [0]
    missing = [p for p in world.pieces if p.time < (FIRST + 1) * HOUR and "orderbook" in str(p.relative)][-1]
    for piece in world.pieces:
        if piece is not missing and piece.time < (FIRST + 2) * HOUR + 1800 * SECOND:
            deliver(piece, lake / "bronze")
            clock[0] = piece.time + 1
    watcher = world.watcher(lake, clock)
    cycle(watcher)
    watcher.close()
    deliver(missing, lake / "bronze")
    assert run_single(world.selection(lake / "bronze", lake / "silver", end=FIRST + 2)).exit_code == 0
    if ends == "open":
        watcher = world.watcher(lake, clock)
        computed = [len(cycle(watcher)) for _ in range(3)]
        watcher.close()
        assert computed[1:] == [0, 0], "once, not in every cycle"
        read = tapes.record(lake / "silver", (FIRST + 1) * HOUR), tapes.record(lake / "silver", (FIRST + 2) * HOUR)
        assert read[0]["chain"]["ewma"]["ended"] == read[1]["chain"]["ewma"]["began"]
    else:
        for piece in world.pieces:
            deliver(piece, lake / "bronze")
        assert run_single(world.selection(lake / "bronze", lake / "silver")).exit_code == 0
        assert_clean(world, lake)


def test_a_chain_stops_where_a_link_fails(tmp_path, monkeypatch):
    """Hour 0 cannot be written: hours behind it wait, instead of going on from a state that is no longer true."""
    lake = make(tmp_path / "lake")
    run(lake)
    before = bronze.parquet(lake / "silver")
    late(lake, 3597)
    real = tickstate.runners.executor.writing

    def fails(path, schema):
        if "hour=22" in str(path):
            raise OSError(28, "No space left on device")
        return real(path, schema)

    with monkeypatch.context() as patch:
        patch.setattr("tickstate.runners.executor.writing", fails)
        assert run(lake).exit_code == 1
    between = bronze.parquet(lake / "silver")
    assert run(lake).exit_code == 0
    after = bronze.parquet(lake / "silver")
    wrong = [name for name, data in between.items() if data not in (before[name], after[name])]
    assert not wrong, "neither the old nor the new file"
    clean = settled(lake)
    run(clean)
    assert tree(lake / "silver") == tree(clean / "silver")


class Backwards(Executor):
    """Does what it is given in the opposite order: an executor promises none."""

    def __init__(self, total):
        self.total, self.waiting = total, []

    def submit(self, fn, *args):
        future = Future()
        self.waiting.append((future, fn, args))
        if len(self.waiting) == self.total:
            for f, g, given_ in reversed(self.waiting):
                f.set_result(g(*given_))
        return future


def test_a_chain_is_one_task_whatever_columns_its_hours_hold(tmp_path):
    lake = make(tmp_path / "lake")
    run(lake)
    run(lake, features=["spread"], start=HOURS[1], end=HOURS[2])
    late(lake, 600)
    selection = Selection(lake / "bronze", lake / "silver", features=("ewma",))
    spans = make_plan(selection).spans(24)
    done = run_batch(selection, workers=2, executor=Backwards(len(spans)))
    assert done.exit_code == 0
    stale = [(str(p), p.reasons) for p in make_plan(selection).stale]
    assert not stale, f"after a run that said all was well ({len(spans)} tasks): {stale}"


def test_differences_says_what_is_wrong():
    """The comparison that the tests of delivery rest on."""
    assert differences({"a": b"1", "c": b""}, {"a": b"2", "b": b""}) == ["missing: b", "too much: c", "differs: a"]
