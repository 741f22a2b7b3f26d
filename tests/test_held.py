"""Partitions whose features are gone, or have other parameters: what a run keeps, computes anew, or cannot make."""

from __future__ import annotations

import bronze
import pyarrow.parquet as pq
import pytest
from broken_features import Good
from plugins import Point

import tickstate
from tickstate.runners.config import make_config
from tickstate.runners.run import plan_silver, plan_tiers
from tickstate.runners.selection import Selection

HOUR = bronze.HOURS[1]


class Theirs(Good):
    """A feature of a package that is uninstalled below."""

    name, outputs = "theirs", (tickstate.Column("theirs_step", "quote", "m - m_prev", "on the first row"),)


@pytest.fixture
def lake(tmp_path):
    return bronze.make_lake(tmp_path / "lake", hours=3)


@pytest.fixture
def installed(plugins):
    """A function: whether the package is installed."""

    def use(there):
        return plugins(*[Point("theirs", Theirs, "their-package")] * there)

    use(True)
    return use


def plan(lake, **config):
    return plan_silver(Selection(lake / "bronze", lake / "silver", config=make_config(config)))


def columns(lake, hour=HOUR):
    return pq.read_schema(bronze.part(lake, bronze.ALPHA, hour)).names


class Hears:
    def __init__(self):
        self.heard = []

    def planned(self, plan):
        pass

    compiling = finished = planned

    def noticed(self, text):
        self.heard.append(text)


def test_installing_alone_makes_nothing_stale(lake, installed):
    installed(False)
    bronze.run(lake)
    before = bronze.tree(lake / "silver")
    installed(True)
    assert plan(lake).stale == []
    assert bronze.computed(bronze.run(lake)) == []
    assert bronze.tree(lake / "silver") == before


def test_partitions_with_a_feature_that_is_gone_stay_as_they_are(lake, installed):
    bronze.run(lake, features=["top_of_book", "theirs"])
    before = bronze.tree(lake / "silver")
    installed(False)
    observer = Hears()
    found = bronze.run(lake, features=["top_of_book"], observer=observer)
    assert (bronze.computed(found), found.failed, found.exit_code, found.up_to_date) == ([], [], 0, 6)
    [said] = observer.heard
    assert "no feature makes theirs_step any more" in said
    assert bronze.tree(lake / "silver") == before
    installed(True)
    assert bronze.computed(bronze.run(lake, features=["theirs"])) == []


def test_what_must_be_computed_and_cannot_is_said_and_all_else_is_done(lake, installed):
    bronze.run(lake, features=["top_of_book", "theirs"], exchange=bronze.ALPHA[0], symbol=bronze.ALPHA[1])
    bronze.run(lake, features=["top_of_book"])
    before = bronze.tree(lake / "silver", ".parquet")
    installed(False)
    next(bronze.bronze_folder(lake, bronze.ALPHA, HOUR).glob("*.parquet")).unlink()
    next(bronze.bronze_folder(lake, bronze.BETA, HOUR).glob("*.parquet")).unlink()
    found = bronze.run(lake, features=["top_of_book"])
    assert found.exit_code == 1
    # the hour, and the one that looked back on it: how far, the record of the lost feature knows
    assert [str(o).split()[1:] for o in found.failed] == [["/".join(bronze.ALPHA), h] for h in bronze.HOURS[1:3]]
    for outcome in found.failed:
        assert "column 'theirs_step' of an existing partition has no feature any more" in outcome.error
        assert "install the package that made it, or write to a new place" in outcome.error
        assert "changed)" in outcome.error
    assert {hour for _, hour in bronze.computed(found)} == set(bronze.HOURS[1:3])
    mine = {name: data for name, data in before.items() if f"exchange={bronze.ALPHA[0]}" in name}
    assert mine.items() <= bronze.tree(lake / "silver", ".parquet").items(), "nothing of it was lost"


def test_a_feature_cannot_be_added_beside_one_that_is_gone(lake, installed):
    bronze.run(lake, features=["theirs"])
    installed(False)
    found = bronze.run(lake, features=["top_of_book"])
    assert len(found.failed) == 6
    assert "columns added: mid_price" in found.failed[0].error


def test_the_plan_of_gold_waits_for_what_cannot_be_made(lake, installed):
    bronze.run(lake, features=["theirs"])
    installed(False)
    silver, gold = plan_tiers(
        Selection(lake / "bronze", lake / "silver", lake / "gold", features=("top_of_book", "bars"), bars=("60s",))
    )
    assert len(silver.failed) == 6
    first = (bronze.HOURS[0], bronze.HOURS[2])  # of each of the two days
    assert {o.error.partition(":")[0] for o in gold.failed} == {f"silver orderbook {hour}" for hour in first}


def windows(*horizons):
    return {"features": {"ofi_sum": {"horizons": list(horizons)}}}


def test_other_parameters_replace_the_columns_of_a_feature(lake):
    """A parameter that decides which columns there are makes the partitions stale, as every other does."""
    bronze.run(lake, features=["ofi_sum"], config=windows(5, 60))
    assert [c for c in columns(lake) if c.startswith("ofi_")] == ["ofi_sum_5s", "ofi_sum_60s"]
    stale = plan(lake, **windows(10, 60), run={"features": ["ofi_sum"]}).stale
    assert len(stale) == 6
    assert stale[0].reasons[0] == "feature ofi_sum has other parameters"
    found = bronze.run(lake, features=["ofi_sum"], config=windows(10, 60))
    assert (len(found.computed), found.failed) == (6, [])
    fresh = lake / "fresh"
    bronze.run(lake, silver=fresh, features=["ofi_sum"], config=windows(10, 60))
    assert bronze.tree(fresh) == {n: d for n, d in bronze.tree(lake / "silver").items() if not n.startswith("_locks")}


def test_a_column_that_was_selected_alone_stays_alone(lake):
    bronze.run(lake, features=["ofi_sum_60s"], config=windows(5, 60))
    found = bronze.run(lake, features=["spread"], config=windows(10, 60, 90))
    assert (len(found.computed), found.failed) == (6, [])
    assert [c for c in columns(lake) if c.startswith("ofi_")] == ["ofi_sum_60s"]
    bronze.run(lake, features=["spread"], config=windows(90))
    assert [c for c in columns(lake) if c.startswith("ofi_")] == [], "nobody has it with these parameters"
