"""Rows of an hour: their order, equal rows, and that files and their boundaries never show."""

from __future__ import annotations

import copy
import tempfile
from itertools import pairwise
from pathlib import Path

import bronze
import pyarrow.parquet as pq
import pytest
from bronze import CHEAP, SECOND, START, book, row
from hypothesis import given, settings
from hypothesis import strategies as st

T = START + 60 * SECOND
SMALL_BATCH = 4


@pytest.fixture
def small_batches(monkeypatch):
    """A few rows a batch, so that segments of a few rows are read in several."""
    monkeypatch.setattr("tickstate.lake.segment.BATCH_ROWS", SMALL_BATCH)


def stream(lake, *segments, names=None):
    """The (time, timestamp, nonce, mid) of silver, from segments given as lists of rows."""
    names = names or [f"s{i:03d}.parquet" for i in range(len(segments))]
    for name, rows in zip(names, segments, strict=True):
        bronze.write(lake / "bronze", bronze.table(rows), name)
    summary = bronze.run(lake, features=CHEAP)
    assert (summary.exit_code, len(summary.computed)) == (0, 1)
    found = bronze.silver(lake)
    assert [r["row_id"] for r in found] == list(range(len(found)))
    assert summary.counters["rows"] == len(found)
    return [
        (round(r["capture_ts"].timestamp() * SECOND) - T, r["timestamp"], r["nonce"], r["mid_price"]) for r in found
    ], summary


def mids(lake, *segments, names=None):
    return [r[3] for r in stream(lake, *segments, names=names)[0]]


def test_order_is_capture_ts_then_timestamp_then_nonce(tmp_path):
    keys = [(2, 1, 5), (1, 9, 5), (1, 3, 7), (1, 3, -1), (1, 3, None), (1, 3, 1), (0, 50, 50)]
    rows = [row(T + t, 100 + i, timestamp=s, nonce=n) for i, (t, s, n) in enumerate(keys)]
    found, _ = stream(tmp_path, rows)
    assert [r[:3] for r in found] == [
        (0, 50, 50), (1, 3, -1), (1, 3, None), (1, 3, 1), (1, 3, 7), (1, 9, 5), (2, 1, 5),
    ]  # fmt: skip


def test_a_null_nonce_stands_beside_0(tmp_path):
    rows = [row(T, 100, nonce=0), row(T, 101, nonce=None), row(T, 102, nonce=0), row(T, 103, nonce=-1)]
    assert mids(tmp_path, rows) == [103, 100, 101, 102]


def test_a_null_timestamp_keeps_its_row(tmp_path):
    found, summary = stream(tmp_path, [row(T, 100, timestamp=None), row(T, 101, timestamp=0), row(T + 1, 102)])
    assert (sorted(r[3] for r in found), summary.counters["duplicates"]) == ([100, 101, 102], 0)


@pytest.mark.parametrize("names", [["a.parquet", "b.parquet"], ["b.parquet", "a.parquet"]])
def test_equal_keys_stand_in_the_order_of_paths_then_rows(tmp_path, names):
    first, second = [row(T, 100), row(T, 99)], [row(T, 50), row(T, 101)]
    expected = [100, 99, 50, 101] if names[0] < names[1] else [50, 101, 100, 99]
    assert mids(tmp_path, first, second, names=names) == expected


def test_equal_rows_are_dropped_wherever_the_first_stands(tmp_path):
    one, two = row(T, 100), row(T, 101)
    found, summary = stream(tmp_path, [one, two, one], [two, one], [row(T + 1, 100)])
    assert [r[3] for r in found] == [100, 101, 100]
    assert summary.counters["duplicates"] == 3


def test_equal_rows_meet_across_batches(tmp_path, small_batches):
    many = [row(T, 100 + i) for i in range(3 * SMALL_BATCH)]
    found, summary = stream(tmp_path, [row(T - 1, 7), *many], [*many, row(T + 1, 8)], many[::-1])
    assert [r[3] for r in found] == [7, *range(100, 100 + 3 * SMALL_BATCH), 8]
    assert summary.counters["duplicates"] == 6 * SMALL_BATCH


def changed(**how):
    return row(T, 100) | how


def deep(**how):
    """A row whose last ask level is another."""
    found = copy.deepcopy(row(T, 100))
    found["asks"][-1] |= how
    return found


NULLS = dict.fromkeys(("nonce", "collected_at", "timestamp", "bids", "asks"))
SAME = {
    "everything": (row(T, 100), row(T, 100)),
    "all null": (changed(**NULLS), changed(**NULLS)),
    "empty lists": (changed(bids=[], asks=[]), changed(bids=[], asks=[])),
    "null levels": (changed(bids=[None]), changed(bids=[None])),
    "null prices": (deep(price=None), deep(price=None)),
    "nan prices": (deep(price=float("nan")), deep(price=float("nan"))),
}
OTHER = {
    "collected_at": (row(T, 100), changed(collected_at=1)),
    "collected_at null": (row(T, 100), changed(collected_at=None)),
    "null or 0 nonce": (changed(nonce=0), changed(nonce=None)),
    "deep price": (row(T, 100), deep(price=1e6)),
    "deep size": (row(T, 100), deep(size=1e-9)),
    "one level more": (row(T, 100), row(T, 100) | book(100, 7)),
    "null list, empty list": (changed(bids=None), changed(bids=[])),
    "sides swapped": (changed(bids=book(1)["asks"], asks=[]), changed(asks=book(1)["asks"], bids=[])),
    "a level moved to the other side": (
        changed(bids=book(100, 3)["bids"], asks=book(100, 2)["asks"]),
        changed(bids=book(100, 2)["bids"], asks=book(100, 3)["asks"]),
    ),
    "price and size exchanged": (deep(price=5.0, size=7.0), deep(price=7.0, size=5.0)),
    "another time": (row(T, 100), row(T + 1, 100) | {k: row(T, 100)[k] for k in ("timestamp", "collected_at")}),
}


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("case", SAME)
def test_dropped(tmp_path, case, files):
    one, two = SAME[case]
    segments = [[one, two]] if files == 1 else [[one], [two]]
    found, summary = stream(tmp_path, *segments)
    assert (len(found), summary.counters["duplicates"]) == (1, 1)


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("case", OTHER)
def test_not_dropped(tmp_path, case, files):
    one, two = OTHER[case]
    segments = [[one, two]] if files == 1 else [[one], [two]]
    found, summary = stream(tmp_path, *segments)
    assert (len(found), summary.counters["duplicates"]) == (2, 0)


def test_a_null_price_and_a_nan_price_are_not_equal(tmp_path):
    found, _ = stream(tmp_path, [deep(price=None), deep(price=float("nan"))])
    assert len(found) == 2


def test_a_whole_copy_of_a_segment_adds_nothing(tmp_path):
    lake = bronze.make_lake(tmp_path / "lake", [bronze.ALPHA], hours=1)
    bronze.run(lake)
    before = bronze.parquet(lake / "silver")
    for path in sorted((lake / "bronze").rglob("*.parquet")):
        path.with_name(f"again-{path.name}").write_bytes(path.read_bytes())
    summary = bronze.run(lake)
    assert summary.counters["duplicates"] > summary.counters["rows"]
    assert bronze.parquet(lake / "silver") == before != {}


def test_an_unsorted_segment_is_sorted(tmp_path, small_batches):
    rows = [row(T + t, 100 + t) for t in (5, 3, 9, 9, 1, 0, 7, 2, 8, 6, 4)]
    found, summary = stream(tmp_path, rows)
    assert [r[0] for r in found] == list(range(10))
    assert summary.counters["out_of_order"] == 8
    assert summary.counters["duplicates"] == 1


def test_overlapping_segments_are_merged(tmp_path, small_batches):
    rows = [row(T + i, 100 + i) for i in range(40)]
    cuts = rows[0:30:3], rows[1:30:3], rows[2:30:3], rows[30:35], rows[33:]
    found, summary = stream(tmp_path, *cuts)
    assert [r[3] for r in found] == [100 + i for i in range(40)]
    assert summary.counters["duplicates"] == 2


def test_an_unsorted_segment_among_sorted_ones(tmp_path, small_batches):
    rows = [row(T + i, 100 + i) for i in range(40)]
    found, _ = stream(tmp_path, rows[:20], rows[10:30][::-1], rows[25:])
    assert [r[3] for r in found] == [100 + i for i in range(40)]


class Opened:
    """How many Parquet files are open at once."""

    def __init__(self, monkeypatch):
        self.now = self.most = self.total = 0
        counter, plain = self, pq.ParquetFile

        class Counted(plain):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                counter.now, counter.total, self.counted = counter.now + 1, counter.total + 1, True
                counter.most = max(counter.most, counter.now)

            def close(self, *args, **kwargs):
                counter.now -= self.counted
                self.counted = False
                super().close(*args, **kwargs)

        monkeypatch.setattr(pq, "ParquetFile", Counted)


def test_only_overlapping_segments_are_open_at_once(tmp_path, small_batches, monkeypatch):
    rows = [row(T + i, 100 + i) for i in range(240)]
    opened = Opened(monkeypatch)
    stream(tmp_path / "apart", *(rows[i : i + 12] for i in range(0, 240, 12)))
    assert opened.total >= 20
    assert (opened.now, opened.most) == (0, opened.most)
    assert opened.most <= 2
    overlap = Opened(monkeypatch)
    stream(tmp_path / "four", *(rows[i : i + 48] for i in range(0, 240, 12)))  # four at any time
    assert 4 <= overlap.most <= 5
    assert overlap.now == 0


def key(one):
    return one["capture_ts"], one["timestamp"], one["nonce"] or 0


def without_repeats(rows):
    """The reference: rows in order, equal ones dropped, as slowly as it goes."""
    kept = []
    for one in sorted(rows, key=key):
        if one not in kept:
            kept.append(one)
    return [(r["capture_ts"] - T, r["timestamp"], r["nonce"], (r["bids"][0]["price"] + r["asks"][0]["price"]) / 2)
            for r in kept]  # fmt: skip


some_rows = st.lists(
    st.builds(
        lambda t, s, n, m: row(T + t, 100.0 + m, timestamp=s, nonce=n),
        st.integers(0, 6), st.integers(0, 1), st.sampled_from([None, 0, 1]), st.integers(0, 2),
    ),
    min_size=1, max_size=30,
)  # fmt: skip


def streamed(segments, batch):
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tickstate.lake.segment.BATCH_ROWS", batch)
        return stream(Path(place), *(s for s in segments if s))[0]


@settings(max_examples=40, deadline=None)
@given(rows=some_rows, cuts=st.lists(st.integers(0, 30), max_size=5), batch=st.integers(1, 8))
def test_any_cut_in_order_gives_the_same_rows(rows, cuts, batch):
    rows = sorted(rows, key=key)
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    segments = [rows[a:b] for a, b in pairwise(edges)]
    assert streamed(segments, batch) == without_repeats(rows)


@settings(max_examples=40, deadline=None)
@given(
    times=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=30, unique=True),
    batch=st.integers(1, 8), data=st.data(),
)  # fmt: skip
def test_any_deal_into_files_gives_the_same_rows_when_keys_differ(times, batch, data):
    rows = [row(T + t, 100.0 + i, timestamp=s) for i, (t, s) in enumerate(times)]  # in any order, too
    where = data.draw(st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
    segments = [[r for r, w in zip(rows, where, strict=True) if w == i] for i in range(5)]
    assert streamed(segments, batch) == without_repeats(rows)


@settings(max_examples=25, deadline=None)
@given(rows=some_rows, batch=st.integers(1, 8))
def test_a_duplicate_in_any_file_is_dropped(rows, batch):
    """Sent twice, the second time in a file of another order: as if once, whichever came first."""
    rows = sorted(rows, key=key)
    found = streamed([rows, rows[::-1]], batch)
    assert found == without_repeats(rows)
