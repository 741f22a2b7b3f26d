"""`--feature X` on silver that exists: X is computed, the rest is copied, and the bytes are those of both at once."""

from __future__ import annotations

import tempfile
from contextlib import closing

import bronze
import lakes
import numpy as np
import pytest
import tapes
from faults.delivery import cycle
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tickstate.features.structure import TopOfBook
from tickstate.lake import segment, write
from tickstate.runners import executor
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher

FIRST, SECOND = "top_of_book", "ofi_sum"
S = lakes.SECOND


@pytest.fixture
def lake(tmp_path):
    place = bronze.make_lake(tmp_path / "lake", hours=3)
    assert bronze.run(place, features=FIRST).exit_code == 0
    return place


@pytest.fixture
def both(tmp_path):
    place = bronze.make_lake(tmp_path / "both", hours=3)
    bronze.run(place, features=[FIRST, SECOND])
    return bronze.tree(place / "silver", ".parquet"), bronze.tree(place / "silver/_commits")


@pytest.fixture
def kept(monkeypatch):
    """How many partitions were made by adding columns."""
    found, joined = [], executor.SilverWorker._joined
    monkeypatch.setattr(
        executor.SilverWorker, "_joined", lambda self, hour, *more: found.append(hour) or joined(self, hour, *more)
    )
    return found


def outputs(lake):
    return bronze.tree(lake / "silver", ".parquet"), bronze.tree(lake / "silver/_commits")


def test_what_is_there_is_copied(lake, both, kept, monkeypatch):
    def computed(*arguments):
        raise AssertionError("a kept column was computed again")

    # the depth imbalance is neither selected nor an input of what is; the top of the book is kept
    monkeypatch.setattr(TopOfBook, "kernel", computed)
    summary = bronze.run(lake, features=SECOND)
    assert (len(summary.computed), summary.failed, len(kept)) == (6, [], 6)
    monkeypatch.undo()
    assert outputs(lake) == both
    assert bronze.computed(bronze.run(lake, features=SECOND)) == []


def test_an_hour_whose_bronze_changed_is_computed_whole(lake, kept):
    folder = bronze.bronze_folder(lake, bronze.ALPHA, bronze.HOURS[0])
    next(folder.glob("*.parquet")).unlink()
    assert len(bronze.run(lake, features=SECOND).computed) == 6
    assert len(kept) == 4, "the hour, and the next one, which looks back on it"
    fresh = lake / "fresh"
    bronze.run(lake, silver=fresh, features=[FIRST, SECOND])
    assert bronze.tree(fresh, ".parquet") == bronze.tree(lake / "silver", ".parquet")


def test_another_parameter_of_what_is_there_computes_it_again(lake, kept):
    bronze.run(lake, features=SECOND, config={"run": {"depth": 7}})
    assert kept == []


def test_a_file_that_was_changed_by_hand_is_not_copied(lake, both, kept):
    path = bronze.part(lake, bronze.ALPHA, bronze.HOURS[1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    bronze.run(lake, features=SECOND)
    assert len(kept) == 5
    assert outputs(lake) == both


def test_a_file_that_is_swapped_after_the_plan_is_not_copied(lake, both, monkeypatch):
    path, keeps = bronze.part(lake, bronze.ALPHA, bronze.HOURS[1]), executor.keeps
    other = bronze.part(lake, bronze.BETA, bronze.HOURS[1]).read_bytes()

    def swap(*arguments):
        monkeypatch.setattr(executor, "keeps", keeps)
        path.write_bytes(other)
        return False

    monkeypatch.setattr(executor, "keeps", swap)
    assert bronze.run(lake, features=SECOND).failed == []
    assert outputs(lake) == both


# ---- anything added to anything

NAMES = (
    "structure", "flow", "impact", "top_of_book", "ofi", "ofi_sum_60s", "mid_price", "trade_windows", "rv", "vpin",
    "ewma", "calendar", "volume_60s",
)  # fmt: skip
TRADES_ONLY = {"calendar", "volume_60s"}
SAMPLES = ({}, {}, {"sample": "1s"}, {"sample": "5s", "fill_gaps": True})
some_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)


@pytest.fixture
def copied(monkeypatch):
    """Small row groups and batches, so that a partition has several of each; the hours that columns were added to."""
    found, joined = [], executor.SilverWorker._joined
    monkeypatch.setattr(write, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(segment, "BATCH_ROWS", 7)
    monkeypatch.setattr(
        executor.SilverWorker, "_joined", lambda self, hour, *more: found.append(hour) or joined(self, hour, *more)
    )
    return found


@pytest.mark.slow
def test_one_after_the_other_is_both_at_once(copied):
    """Flagged rows, gaps, no trades at all, samples, several row groups: byte for byte, the records too."""
    seen = set()

    @given(
        lakes.books(min_rows=2, max_rows=30, max_levels=3), tapes.trades(max_rows=20), some_names, some_names,
        st.sampled_from(SAMPLES),
    )  # fmt: skip
    @settings(max_examples=30, phases=[Phase.explicit, Phase.reuse, Phase.generate])
    def hold(rows, trades, first, second, sample):
        config, copied[:] = {"run": sample, "features": lakes.SMALL}, []
        first, second = ([n for n in names if trades or n not in TRADES_ONLY] for names in (first, second))
        with tempfile.TemporaryDirectory() as place:
            lake = tapes.write(place, {("orderbook", tapes.SYMBOL): rows, ("trades", tapes.SYMBOL): trades})
            for names in filter(None, (first, second)):
                tapes.run(lake, features=names, config=config)
            if first or second:
                tapes.run(lake, lake / "fresh", features=[*first, *second], config=config)
            one, both = (bronze.tree(lake / n) for n in ("silver", "fresh"))
            unchanging = ("_locks", "_state")
            one, both = ({n: d for n, d in t.items() if not n.startswith(unchanging)} for t in (one, both))
            assert one == both
            if second:
                assert tapes.run(lake, features=second, config=config).computed == []
        seen.update({"copied"} if copied else set(), {f"copied {s}" for s in sample if copied})
        seen.update({"flags"} if any(not r["bids"] for r in rows) else set(), {"no trades"} if not trades else set())

    book = lakes.ordered(lakes.random_book(np.random.default_rng(3), 40, gap=1.0, levels=3, flagged=0.2))
    for sample in SAMPLES[1:]:  # so that each is seen whatever is drawn
        hold.hypothesis.inner_test(book, [], ["top_of_book"], ["ofi"], sample)
    # the step over midnight is in the record as far as a lookback shows it: of what is kept, not of what is added
    tape = [tapes.trade(lakes.MIDNIGHT + s * S, trade_id=str(s)) for s in (-1, 1, 400)]
    hold.hypothesis.inner_test(book, tape, ["volume_60s"], ["calendar"], {})
    hold()
    assert {"copied", "flags", "no trades"} <= seen


def test_in_an_hour_that_is_open(tmp_path):
    """What is added while the hour grows is what both would have been."""
    rows = {s: tapes.touch(lakes.MIDNIGHT + s * S, mid=100.0 + s % 7, nonce=s) for s in range(-900, 900, 20)}
    trades = {s: tapes.trade(lakes.MIDNIGHT + s * S, trade_id=str(s)) for s in range(-900, 900, 30)}

    def deliver(place, name, first, last):
        part = {
            (channel, tapes.SYMBOL): [row for s, row in found.items() if first <= s < last]
            for channel, found in (("orderbook", rows), ("trades", trades))
        }
        tapes.write(place, part, name=f"{name}.parquet")

    def watch(place, seconds, *names):
        chosen = Selection(place / "bronze", place / "silver", features=names)
        with closing(Watcher(chosen, Pace(grace=120.0), now=lambda: lakes.MIDNIGHT + seconds * S)) as watcher:
            cycle(watcher)
        record = tapes.record(place / "silver", lakes.MIDNIGHT)
        return tapes.parts(place / "silver"), record["cutoff"] and (record["cutoff"] - lakes.MIDNIGHT) // S

    lake, fresh = tmp_path / "lake", tmp_path / "fresh"
    deliver(lake, "a", -900, 300)
    assert watch(lake, 350, FIRST, "trade_windows")[1] == 270, "the last trade"
    deliver(lake, "b", 300, 900)
    deliver(fresh, "a", -900, 900)
    assert watch(lake, 950, SECOND) == watch(fresh, 950, FIRST, SECOND, "trade_windows")
    assert watch(lake, 950, SECOND)[1] == 870
    assert watch(lake, 4000, FIRST) == watch(fresh, 4000, SECOND)
    assert watch(lake, 4000, FIRST)[1] is None
