"""What counts as bronze: hive paths, names, which files are looked at, which types are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import bronze
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, CHEAP, START, row

from tickstate import LakeError


def two_rows(lane=ALPHA, at=START):
    return bronze.table([row(at + 1, 100, lane=lane), row(at + 2, 101, lane=lane)])


def test_padded_and_unpadded_paths_are_one_hour(tmp_path):
    early = START + 3 * bronze.HOUR  # 2024-03-02T01: every part of it is padded
    bronze.write(tmp_path / "bronze", bronze.table([row(early + 1, 100)]), "a.parquet", padded=True)
    bronze.write(tmp_path / "bronze", bronze.table([row(early + 2, 101)]), "b.parquet", padded=False)
    summary = bronze.run(tmp_path, features=CHEAP)
    assert bronze.computed(summary) == [("alpha/BTC-USDT", "2024-03-02T01")]
    assert [r["mid_price"] for r in bronze.silver(tmp_path)] == [100, 101]
    assert bronze.part(tmp_path, ALPHA, "2024-03-02T01").exists(), "written without padding"


def test_padding_changes_no_output_byte(tmp_path):
    early = START + 3 * bronze.HOUR
    for lake, padded in (("one", True), ("two", False)):
        bronze.write(tmp_path / lake / "bronze", two_rows(at=early), padded=padded)
        bronze.run(tmp_path / lake)
    assert bronze.parquet(tmp_path / "one/silver") == bronze.parquet(tmp_path / "two/silver") != {}


@pytest.mark.parametrize("raw", ["BTC/USD", "BTC:USD"])
def test_names_are_sanitised(tmp_path, raw):
    lane = ("alpha", raw)
    path = bronze.write(tmp_path / "bronze", two_rows(lane))
    assert ("BTC%2FUSD" in str(path)) == (raw == "BTC/USD")
    summary = bronze.run(tmp_path, features=CHEAP)
    assert (summary.exit_code, len(summary.computed)) == (0, 1)
    assert bronze.part(tmp_path, ("alpha", "BTC-USD"), bronze.HOURS[0]).exists()
    assert {r["symbol"] for r in bronze.silver(tmp_path)} == {"BTC-USD"}


def test_symbols_that_would_collide_are_an_error(tmp_path):
    bronze.write(tmp_path / "bronze", two_rows(("alpha", "BTC/USD")))
    bronze.write(tmp_path / "bronze", two_rows(("alpha", "BTC-USD")))
    with pytest.raises(LakeError, match="would both be written as alpha/BTC-USD") as caught:
        bronze.run(tmp_path)
    assert "alpha/BTC/USD" in str(caught.value), "names the other one too"
    assert not (tmp_path / "silver").exists()


def test_equal_symbols_of_two_exchanges_do_not_collide(tmp_path):
    for lane in (("alpha", "BTC-USD"), ("beta", "BTC-USD"), ("alpha", "btc-usd")):
        bronze.write(tmp_path / "bronze", two_rows(lane))
    assert len(bronze.run(tmp_path, features=CHEAP).computed) == 3


@pytest.mark.parametrize(
    "name",
    [".a.parquet", "_a.parquet", "_unfinished/a.parquet", ".hidden/a.parquet", "a.parquet.tmp", "a.parquet~", "a.csv"],
)
def test_hidden_and_foreign_files_are_ignored(tmp_path, name):
    path = bronze.write(tmp_path / "bronze", two_rows())
    before = bronze.run(tmp_path, features=CHEAP)
    for junk in (path.parent / name, tmp_path / "bronze/orderbook" / name):
        junk.parent.mkdir(exist_ok=True)
        junk.write_bytes(b"not Parquet at all")
    after = bronze.run(tmp_path, features=CHEAP)
    assert (before.exit_code, after.exit_code) == (0, 0)
    assert (after.up_to_date, after.computed, after.quarantined) == (1, [], [])


@pytest.mark.parametrize(
    "folders",
    [
        "exchange=alpha/symbol=S/year=2024/month=3/day=1",
        "exchange=alpha/symbol=S/year=2024/month=3/day=1/hour=22/more=1",
        "exchange=alpha/year=2024/symbol=S/month=3/day=1/hour=22",
        "exchange=alpha/symbol=S/year=2024/month=13/day=1/hour=22",
        "exchange=alpha/symbol=S/year=2023/month=2/day=29/hour=22",
        "exchange=alpha/symbol=S/year=2024/month=3/day=1/hour=24",
        "exchange=alpha/symbol=S/year=2024/month=3/day=1/hour=-1",
        "exchange=alpha/symbol=S/year=2024/month=3/day=1/hour=+1",
        "exchange=alpha/symbol=/year=2024/month=3/day=1/hour=1",
        "alpha/BTC/2024/3/1/22",
        "",
    ],
)
def test_a_path_that_is_no_hour_is_set_aside_and_said(tmp_path, folders):
    bronze.write(tmp_path / "bronze", two_rows())
    odd = tmp_path / "bronze/orderbook" / folders
    odd.mkdir(parents=True, exist_ok=True)
    pq.write_table(two_rows(), odd / "x.parquet")
    summary = bronze.run(tmp_path, features=CHEAP)
    assert [(q.path, q.reason) for q in summary.quarantined] == [
        ("/".join(filter(None, ("orderbook", folders, "x.parquet"))), "bad_path")
    ]
    assert (summary.exit_code, len(summary.computed)) == (1, 1), "and all else is done"


@pytest.mark.parametrize("missing", [["nonce"], ["collected_at"], ["nonce", "collected_at"]])
def test_missing_optional_columns_read_as_null(tmp_path, missing):
    lake = tmp_path
    bronze.write(lake / "bronze", two_rows().drop_columns(missing))
    nulls = two_rows()
    for name in missing:
        nulls = nulls.set_column(nulls.column_names.index(name), name, pa.nulls(2, pa.int64()))
    bronze.write(lake / "other/bronze", nulls)
    assert (bronze.run(lake).exit_code, bronze.run(lake / "other").exit_code) == (0, 0)
    assert bronze.parquet(lake / "silver") == bronze.parquet(lake / "other/silver") != {}
    assert [r["nonce"] for r in bronze.silver(lake)] == ([None, None] if "nonce" in missing else [7, 7])


def test_extra_columns_and_other_column_order_change_nothing(tmp_path):
    plain = two_rows()
    odd = plain.select(plain.column_names[::-1]).append_column("venue", pa.array(["x", "y"]))
    for lake, found in (("one", plain), ("two", odd)):
        bronze.write(tmp_path / lake / "bronze", found)
        assert bronze.run(tmp_path / lake).exit_code == 0
    assert bronze.parquet(tmp_path / "one/silver") == bronze.parquet(tmp_path / "two/silver") != {}


def test_bronze_by_polars_is_read(tmp_path):
    path = bronze.write(tmp_path / "one/bronze", bronze.walk(ALPHA, hours=1))
    other = tmp_path / "two/bronze" / path.relative_to(tmp_path / "one/bronze")
    other.parent.mkdir(parents=True)
    pl.from_arrow(pq.read_table(path, partitioning=None)).write_parquet(other)
    assert pa.types.is_large_list(pq.read_schema(other).field("bids").type), "else this shows nothing"
    for lake in ("one", "two"):
        assert bronze.run(tmp_path / lake).exit_code == 0
    assert bronze.parquet(tmp_path / "one/silver") == bronze.parquet(tmp_path / "two/silver") != {}


def as_types(found: pa.Table, **types: pa.DataType) -> pa.Table:
    fields = [pa.field(f.name, types.get(f.name, f.type)) for f in found.schema]
    return found.cast(pa.schema(fields))


NARROW = {
    "narrow integers": {"year": pa.int16(), "month": pa.int8(), "hour": pa.uint8(), "nonce": pa.int32()},
    "wide integers": {"year": pa.int64(), "day": pa.int64(), "nonce": pa.uint64()},
    "dictionary texts": {"exchange": pa.dictionary(pa.int32(), pa.string())},
    "large texts": {"symbol": pa.large_string()},
    "no nulls allowed": {
        "bids": pa.list_(pa.field("item", pa.struct([pa.field("price", pa.float64(), False), ("size", pa.float64())])))
    },
    "offset for UTC": {"capture_ts": pa.timestamp("us", "+00:00")},
}


@pytest.mark.parametrize("what", NARROW)
def test_types_that_hold_the_same_values_are_welcome(tmp_path, what):
    bronze.write(tmp_path / "one/bronze", two_rows())
    bronze.write(tmp_path / "two/bronze", as_types(two_rows(), **NARROW[what]))
    for lake in ("one", "two"):
        summary = bronze.run(tmp_path / lake)
        assert summary.exit_code == 0, summary.quarantined
    assert bronze.parquet(tmp_path / "one/silver") == bronze.parquet(tmp_path / "two/silver") != {}


def test_a_segment_without_rows_makes_an_hour_without_rows(tmp_path):
    path = bronze.write(tmp_path / "bronze", two_rows())
    pq.write_table(two_rows().slice(0, 0), path)
    summary = bronze.run(tmp_path)
    assert (summary.exit_code, summary.counters["rows"]) == (0, 0)
    found = pq.read_table(bronze.part(tmp_path, ALPHA, bronze.HOURS[0]), partitioning=None)
    full = pq.read_schema(bronze.part(bronze.tiny(), ALPHA, bronze.HOURS[0]))
    assert found.num_rows == 0
    assert found.schema.equals(full), "the columns of any other hour"


def test_moving_the_lake_makes_nothing_stale(tmp_path):
    lake = bronze.copy_tiny(tmp_path / "copy")
    assert bronze.run(lake).computed == []
    moved = Path(shutil.move(lake, tmp_path / "elsewhere"))
    assert bronze.run(moved).up_to_date == 8
