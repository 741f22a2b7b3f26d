"""``features parity``: the three runners, or two lakes, column by column; any difference is told and is exit code 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bronze
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tapes
from bronze import ALPHA, BETA, HOURS
from faults.delivery import FIRST, rows_of

from tickstate.runners import parity
from tickstate.runners.parity import compare_lakes, compare_runners
from tickstate.runners.selection import Selection


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    lake = bronze.make_lake(tmp_path_factory.mktemp("parity") / "lake", hours=2, rows=40)
    assert bronze.run(lake, features=["mid_price", "ofi", "spread_rank"]).exit_code == 0
    return lake / "silver"


@pytest.fixture
def other(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "silver"))


def path_of(silver, lane=ALPHA, hour=HOURS[1]):
    return bronze.part(silver.parent / "x", lane, hour).relative_to(silver.parent / "x/silver")


def change(silver, column, row, value):
    """Put another value into a partition; returns the one that was there."""
    path = silver / path_of(silver)
    table = pq.read_table(path, partitioning=None)
    values = table[column].to_pylist()
    before, values[row] = values[row], value
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(values, table[column].type)), path)
    return before


def differing(found):
    return [c for c in found if c.differ]


def test_equal_lakes(made, other):
    found = compare_lakes(made, other)
    assert not differing(found)
    assert {c.verdict for c in found} == {"same"}
    rows = sum(pq.read_metadata(p).num_rows for p in (made / "orderbook").rglob("*.parquet"))
    assert {c.rows for c in found} == {rows}
    table = pq.read_table(next((made / "orderbook").rglob("*.parquet")), partitioning=None)
    assert [c.column for c in found] == table.column_names


@pytest.mark.parametrize(
    ("column", "value"),
    [("mid_price", 1.5), ("mid_price", None), ("book_flag", "locked"), ("row_id", 99), ("hour", 3), ("nonce", None)],
)
def test_one_changed_value(made, other, column, value):
    before = change(other, column, 5, value)
    (found,) = differing(compare_lakes(made, other))
    assert (found.column, found.differ, found.verdict) == (column, 1, "DIFFERS")
    assert found.first == f"alpha/BTC-USDT {HOURS[1]} row 5: {before} | {value}"


def test_the_last_bit(made, other):
    path = other / path_of(other)
    value = pq.read_table(path, columns=["mid_price"], partitioning=None)["mid_price"][5].as_py()
    change(other, "mid_price", 5, float(np.nextafter(value, np.inf)))
    (found,) = differing(compare_lakes(made, other))
    assert found.differ == 1


def test_the_sign_of_zero(made, other, tmp_path):
    """To the bit: bytes promise more than what compares as equal."""
    both = [Path(shutil.copytree(made, tmp_path / name)) for name in ("plus", "minus")]
    for silver, value in zip(both, (0.0, -0.0), strict=True):
        change(silver, "mid_price", 5, value)
    assert len(differing(compare_lakes(*both))) == 1
    assert other.exists()


def test_nan_is_not_null_but_equals_itself(made, tmp_path):
    left, right = (Path(shutil.copytree(made, tmp_path / name)) for name in ("left", "right"))
    change(left, "mid_price", 5, float("nan"))
    assert len(differing(compare_lakes(left, right))) == 1
    change(right, "mid_price", 5, float("nan"))
    assert not differing(compare_lakes(left, right))


def test_what_one_lacks(made, other):
    """A partition, some rows, a column."""
    (other / path_of(other, BETA)).unlink()
    missing = pq.read_metadata(made / path_of(made, BETA)).num_rows
    found = compare_lakes(made, other)
    assert {c.differ for c in found} == {missing}
    assert all("beta/ETH-USDT" in c.first and c.first.endswith("| absent") for c in found)
    shutil.copy(made / path_of(made, BETA), other / path_of(other, BETA))
    path = other / path_of(other)
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.slice(0, 10), path)
    assert {c.differ for c in compare_lakes(made, other)} == {table.num_rows}, "rows cannot be matched"
    pq.write_table(table.drop_columns(["ofi"]), path)
    (found,) = differing(compare_lakes(made, other))
    assert (found.column, found.differ) == ("ofi", table.num_rows)
    pq.write_table(table.set_column(0, "capture_ts", table["capture_ts"].cast(pa.int64())), path)
    assert [c.column for c in differing(compare_lakes(made, other))] == ["capture_ts"]


def test_left_and_right(made, other):
    found = bronze.features("parity", "--left", made, "--right", other, "--json")
    assert found.returncode == 0, found.stderr
    assert {c["verdict"] for c in json.loads(found.stdout)} == {"same"}
    before = change(other, "mid_price", 5, 1.5)
    found = bronze.features("parity", "--left", made, "--right", other)
    assert found.returncode == 1
    assert "mid_price" in found.stdout
    assert f"alpha/BTC-USDT {HOURS[1]} row 5: {before} | 1.5" in found.stdout
    assert "1 differ" in found.stdout
    assert bronze.features("parity", "--left", made).returncode == 2
    assert bronze.features("parity", "--left", "nowhere", "--right", "neither").returncode == 2


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One lane of all channels."""
    root = tmp_path_factory.mktemp("small")
    tapes.write(root, rows_of(2, gap=20.0))
    return root


FEATURES = ("mid_price", "ofi_sum_60s", "tfi_60s", "volume_60s", "ewma")


def test_all_three_runners(small, monkeypatch):
    monkeypatch.setattr(parity, "run_batch", lambda chosen, workers: parity.run_single(chosen))  # processes: below
    chosen = Selection(small / "bronze", Path("unused"), features=FEATURES)
    told = []
    found = compare_runners(chosen, told.append)
    assert told == ["single", "batch", "watcher"]
    assert found.keys() == {"batch", "watcher"}
    for columns in found.values():
        assert {c.channel for c in columns} == {"orderbook", "trades", "ticker"}
        assert not differing(columns)
        assert sum(c.rows for c in columns) > 1000
    assert not Path("unused").exists()


def test_the_command_over_all_three(small):
    chosen = [x for name in FEATURES[:3] for x in ("--feature", name)]
    found = bronze.features("parity", "--bronze", small / "bronze", *chosen, "--end", tapes.hour_text(FIRST + 1))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 differ" in found.stdout
    assert "ofi_sum_60s" in found.stdout


def test_a_runner_that_goes_wrong_is_caught(small, monkeypatch):
    """The watcher loses a segment: the comparison says so."""
    real = parity._needed
    monkeypatch.setattr(parity, "run_batch", lambda chosen, workers: parity.run_single(chosen))
    monkeypatch.setattr(
        parity, "_needed", lambda plan: {s for s in real(plan) if s.channel != "trades" or s.hour != FIRST}
    )
    found = compare_runners(Selection(small / "bronze", Path("unused"), features=("tfi_60s",)), lambda name: None)
    assert not differing(found["batch"])
    assert "tfi_60s" in {c.column for c in differing(found["watcher"])}


def test_runners_that_all_fail_are_not_the_same(small, monkeypatch):
    """Nothing compared is no parity: a partition that no runner can make is told."""
    monkeypatch.setattr(parity, "run_batch", lambda chosen, workers: parity.run_single(chosen))
    chosen = Selection(small / "bronze", Path("unused"), features=("ewma",), channels=("orderbook",), start=FIRST + 1)
    with pytest.raises(Exception, match=r"\S"):
        compare_runners(chosen, lambda name: None)
