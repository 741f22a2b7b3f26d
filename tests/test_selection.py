"""`--feature X` on silver that exists: X is computed, the rest is copied, and the bytes are those of both at once."""

from __future__ import annotations

import bronze
import pytest

from tickstate.features.structure import TopOfBook
from tickstate.runners import executor

FIRST, SECOND = "top_of_book", "ofi_sum"


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
