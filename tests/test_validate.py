"""``features validate``: a clean lake has no findings; every rule finds its breach, every flipped bit is found."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import bronze
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, BETA, HOUR, HOURS, START

from tickstate.lake.listing import list_channel
from tickstate.lake.names import Lane
from tickstate.lake.validate import validate_output
from tickstate.lake.write import ROW_GROUP_ROWS, writer_options
from tickstate.runners.validation import validate_lake

FLIPS = 200


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A lake of two lanes and four hours, a handful of columns."""
    lake = bronze.make_lake(tmp_path_factory.mktemp("validate") / "lake", hours=4, rows=40)
    assert bronze.run(lake, features=["mid_price", "ofi"]).exit_code == 0
    return lake


@pytest.fixture
def lake(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "lake"))


def findings(lake, with_bronze=True):
    return validate_lake(lake / "bronze" if with_bronze else None, lake / "silver").findings


def rules(lake, **options):
    return [f.rule for f in findings(lake, **options)]


def test_a_clean_lake(made):
    found = validate_lake(made / "bronze", made / "silver")
    assert found.findings == []
    assert found.files == len(list(made.rglob("*.parquet"))) == 24 + 8


def test_clean_lakes_of_every_kind(tmp_path):
    """Sampled, with quotes normalised, after a watcher, with a chain, with an open hour."""
    for name, run, features in (
        ("sampled", {"sample": "60s"}, ["mid_price"]),
        ("filled", {"sample": "60s", "fill_gaps": True}, ["mid_price"]),
        ("chain", {}, ["ewma"]),
        ("names", {"normalize_quotes": True}, ["mid_price"]),
    ):
        lake = bronze.make_lake(tmp_path / name, [ALPHA], hours=2, rows=30)
        assert bronze.run(lake, features=features, config={"run": run}).exit_code == 0
        assert [(f.path, f.rule) for f in findings(lake)] == [], name


def test_prune_takes_nothing_that_has_bronze(tmp_path):
    """BTC-USDT in bronze is BTC-USD in silver where quotes are normalised: it is not gone."""
    lake = bronze.make_lake(tmp_path, [ALPHA], hours=2, rows=30)
    bronze.run(lake, features=["mid_price"], config={"run": {"normalize_quotes": True}})
    before = bronze.tree(lake / "silver")
    assert validate_lake(lake / "bronze", lake / "silver", remove=True).removed == []
    assert bronze.tree(lake / "silver") == before


def test_flipped_bits_are_all_found(lake):
    """One bit of one partition, anywhere in its file."""
    path, rng = bronze.part(lake, ALPHA, HOURS[1]), random.Random(11)
    listing = list_channel(lake / "silver", "orderbook")
    lane = Lane(*ALPHA)
    hour = next(h for h in listing.lanes[lane] if h % 24 == 23)
    listing.lanes = {lane: {hour: listing.lanes[lane][hour]}}
    data, missed = path.read_bytes(), []
    assert list(validate_output(lake / "silver", listing, None)) == []
    for _ in range(FLIPS):
        bit = rng.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found = [f for f in validate_output(lake / "silver", listing, None) if f.path.endswith("part-0.parquet")]
        if not found:
            missed.append(bit)
    path.write_bytes(data)
    assert not missed, f"{len(missed)} of {FLIPS} bits of {len(data)} bytes: {missed[:5]}"
    assert list(validate_output(lake / "silver", listing, None)) == []


def test_flipped_bits_of_commit_records(lake):
    """What a record says of its partition: a flip is found, or changes nothing that counts for the file."""
    path, rng = bronze.commit(lake, ALPHA, HOURS[1]), random.Random(12)
    data = path.read_bytes()
    for name in ("content", "file"):
        value = json.loads(data)[name].encode()
        at = data.index(value) + rng.randrange(len(value))
        path.write_bytes(data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :])
        assert rules(lake), name
    path.write_bytes(data[:-9])
    assert rules(lake) == ["no_record", "no_output"] or rules(lake) == ["no_record"]


# ---- rule by rule


def rewrite(path, table):
    pq.write_table(table, path, **writer_options(table.schema), row_group_size=ROW_GROUP_ROWS)


def spoiled(lake, change):
    """The rules found in a partition whose rows are changed, without a record that would know the bytes."""
    path = bronze.part(lake, ALPHA, HOURS[1])
    rewrite(path, change(pq.read_table(path, partitioning=None)))
    found = findings(lake, with_bronze=False)
    assert {f.path for f in found} == {str(path.relative_to(lake / "silver"))}
    return found


def put(table, name, row, value):
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(
        table.column_names.index(name), table.schema.field(name), pa.array(values, table[name].type)
    )


def of(found, rule):
    return [f.detail for f in found if f.rule == rule]


@pytest.mark.parametrize(
    ("column", "value"),
    [("exchange", "beta"), ("symbol", "X"), ("symbol", None), ("year", 2023), ("month", 4), ("day", 2), ("hour", 0)],
)
def test_a_wrong_partition_value(lake, column, value):
    found = spoiled(lake, lambda t: put(t, column, 7, value))
    (detail,) = of(found, "partition")
    assert detail.startswith(f"row 7: {column} is")
    assert of(found, "bytes")


def test_the_wrong_order(lake):
    found = spoiled(lake, lambda t: t.set_column(0, t.schema.field(0), t[0].take([1, 0, *range(2, t.num_rows)])))
    assert of(found, "order")


def test_the_wrong_order_at_a_row_group(lake, monkeypatch):
    """The last row of one group and the first of the next."""
    path = bronze.part(lake, ALPHA, HOURS[1])
    rows = pq.read_table(path, partitioning=None)
    turned = pa.concat_tables([rows.slice(20), rows.slice(0, 20)])
    keys = pa.array(range(rows.num_rows))
    turned = turned.set_column(turned.column_names.index("row_id"), turned.schema.field("row_id"), keys)
    bronze.commit(lake, ALPHA, HOURS[1]).unlink()
    pq.write_table(turned, path, row_group_size=rows.num_rows - 20)
    assert rules(lake, with_bronze=False) == ["no_record", "order"]


@pytest.mark.parametrize("value", [3, 5, 99, -1])
def test_row_ids_that_repeat_or_jump(lake, value):
    found = spoiled(lake, lambda t: put(t, "row_id", 4, value))
    assert of(found, "key") == [f"row 4: row_id is {value}, expected 4"]


def test_rows_of_another_hour(lake):
    found = spoiled(lake, lambda t: put(t, "capture_ts", t.num_rows - 1, START + 2 * HOUR))
    assert HOURS[1] in of(found, "hour")[0]


def test_one_other_value(lake):
    found = spoiled(lake, lambda t: put(t, "mid_price", 3, 1.0))
    assert {f.rule for f in found} == {"bytes", "content"}


def test_columns_that_are_missing(lake):
    found = spoiled(lake, lambda t: t.drop_columns(["mid_price"]))
    assert "mid_price" in of(found, "schema")[0]
    found = spoiled(lake, lambda t: t.drop_columns(["row_id"]))
    assert "row_id" in of(found, "schema")[0]


def test_another_type(lake):
    found = spoiled(lake, lambda t: t.set_column(t.column_names.index("ofi"), "ofi", t["ofi"].cast(pa.float32())))
    assert of(found, "content")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1 and nothing more PAR1"])
def test_no_parquet_at_all(lake, data):
    bronze.part(lake, ALPHA, HOURS[1]).write_bytes(data)
    assert set(rules(lake)) == {"bytes", "unreadable"}


def test_a_truncated_file(lake):
    path = bronze.part(lake, ALPHA, HOURS[1])
    path.write_bytes(path.read_bytes()[:-20])
    assert set(rules(lake)) == {"bytes", "unreadable"}


def test_no_record_and_no_output(lake):
    bronze.commit(lake, ALPHA, HOURS[0]).unlink()
    bronze.part(lake, BETA, HOURS[1]).unlink()
    found = {f.rule: f.path for f in findings(lake)}
    assert found.keys() == {"no_record", "no_output"}
    assert "exchange=alpha" in found["no_record"]
    assert "hour=22" in found["no_record"]
    assert "exchange=beta" in found["no_output"]
    assert "hour=23" in found["no_output"]


def test_files_and_folders_of_nobody(lake):
    shutil.copy(bronze.part(lake, ALPHA, HOURS[0]), bronze.part(lake, ALPHA, HOURS[0]).with_name("part-1.parquet"))
    other = lake / "silver/orderbook/exchange=alpha/part-0.parquet"
    shutil.copy(bronze.part(lake, ALPHA, HOURS[0]), other)
    assert sorted(rules(lake)) == ["bad_path", "unknown_file"]


@pytest.mark.parametrize("index", range(4))
def test_bronze_that_is_gone(lake, index):
    """Any hour, whether the one before it is still there or not."""
    shutil.rmtree(bronze.bronze_folder(lake, ALPHA, HOURS[index]))
    found = findings(lake)
    assert [f.rule for f in found] == ["no_bronze"]
    assert findings(lake, with_bronze=False) == []
    path = bronze.part(lake, ALPHA, HOURS[index])
    assert found[0].path == str(path.relative_to(lake / "silver"))
    removed = validate_lake(lake / "bronze", lake / "silver", remove=True)
    assert removed.removed == [found[0].path]
    assert removed.findings == []
    assert not path.exists()
    assert not bronze.commit(lake, ALPHA, HOURS[index]).exists()
    assert len(bronze.parquet(lake / "silver")) == 7


def test_prune_leaves_what_tickstate_has_not_made(lake):
    """Tiers mixed up: bronze whose hour has no silver is not silver whose bronze is gone."""
    shutil.rmtree(bronze.part(lake, ALPHA, HOURS[1]).parent)
    for path in list((lake / "bronze").rglob("*.parquet")):
        path.rename(path.with_name("part-0.parquet"))
    before = bronze.tree(lake / "bronze")
    mixed_up = validate_lake(lake / "silver", lake / "bronze", remove=True)
    assert mixed_up.removed == []
    assert {"no_record", "schema"} <= {f.rule for f in mixed_up.findings}
    assert bronze.tree(lake / "bronze") == before


@pytest.mark.parametrize("recorded", [True, False])
def test_prune_takes_a_partition_with_or_without_its_record_and_not_what_lies_beside_it(lake, recorded):
    """Without one, nobody knows whether it was a sample's, whose bronze lies in the hour before; here is none."""
    shutil.rmtree(bronze.bronze_folder(lake, ALPHA, HOURS[0]))
    part, record = bronze.part(lake, ALPHA, HOURS[0]), bronze.commit(lake, ALPHA, HOURS[0])
    other = part.with_name("labels.parquet")
    shutil.copy(next((lake / "bronze").rglob("*.parquet")), other)
    if not recorded:
        record.unlink()
    found = validate_lake(lake / "bronze", lake / "silver", remove=True)
    assert found.removed == [str(part.relative_to(lake / "silver"))]
    assert (part.exists(), record.exists(), other.exists()) == (False, False, True)


def test_the_bronze_tier(lake):
    folder = bronze.bronze_folder(lake, ALPHA, HOURS[0])
    (folder / "broken.parquet").write_bytes(b"PAR1")
    shutil.copy(next(bronze.bronze_folder(lake, ALPHA, HOURS[1]).glob("*.parquet")), folder / "wrong.parquet")
    shutil.copy(folder / "wrong.parquet", lake / "bronze/orderbook/lost.parquet")
    found = validate_lake(lake / "bronze", None)
    assert sorted((Path(f.path).name, f.rule) for f in found.findings) == [
        ("broken.parquet", "unreadable"), ("lost.parquet", "bad_path"), ("wrong.parquet", "path_mismatch"),
    ]  # fmt: skip
    assert found.coverage == []


def test_damaged_pages_of_bronze(tmp_path):
    """`validate` reads every page of every file, wide columns too: that is what it is for."""
    lake = bronze.make_lake(tmp_path, [ALPHA], hours=1, rows=60)
    path = next((lake / "bronze").rglob("*.parquet"))
    pq.write_table(pq.read_table(path, partitioning=None), path, write_page_checksum=True, compression="none")
    group = pq.read_metadata(path).row_group(0)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.startswith("asks"))
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 9] ^= 1
    path.write_bytes(data)
    assert [f.rule for f in validate_lake(lake / "bronze", None).findings] == ["corrupt"]


def test_coverage(lake):
    """Rows, gaps and covered time of each lane and day."""
    found = validate_lake(None, lake / "silver").coverage
    assert [(c.channel, c.lane, c.day, c.partitions) for c in found] == [
        ("orderbook", lane, day, 2)
        for lane in ("alpha/BTC-USDT", "beta/ETH-USDT")
        for day in ("2024-03-01", "2024-03-02")
    ]
    for c in found:
        records = [
            json.loads(bronze.commit(lake, tuple(c.lane.split("/")), h).read_text())["counters"]
            for h in HOURS
            if h.startswith(c.day)
        ]
        assert c.rows == sum(r["rows"] for r in records) > 0
        assert c.gaps == sum(r["gaps"] for r in records)
        assert c.seconds_covered == sum(r["seconds_covered"] for r in records) > 3600


# ---- the command


def test_exit_codes_and_json(lake):
    found = bronze.features("validate", "--lake", lake)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 breaches" in found.stdout
    assert "2024-03-02" in found.stdout
    rewrite(path := bronze.part(lake, ALPHA, HOURS[1]), put(pq.read_table(path, partitioning=None), "hour", 0, 3))
    shutil.rmtree(bronze.bronze_folder(lake, BETA, HOURS[0]))
    found = bronze.features("validate", "--lake", lake, "--json")
    assert found.returncode == 1
    told = json.loads(found.stdout)
    assert {f["rule"] for f in told["findings"]} == {"bytes", "content", "partition", "no_bronze"}
    assert told["files"] == 32 - 3
    assert len(told["coverage"]) == 4
    found = bronze.features("validate", "--lake", lake, "--prune")
    assert "removed: orderbook/exchange=beta" in found.stdout
    assert found.returncode == 1, "the other breach is still there"


@pytest.mark.parametrize("arguments", [(), ("--prune", "--silver", "."), ("--silver", "nowhere")])
def test_usage(tmp_path, arguments):
    found = bronze.features("validate", *arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
