"""tickstate from Python: run, compute, scan."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta, timezone

import bronze
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, BETA, HOURS, START, row

import tickstate
from tickstate import FeatureError, LakeError, TickstateError


@pytest.mark.parametrize(
    "name", ["run", "compute", "scan", "Summary", "Feature", "Column", "Lookback", "Param", "Registry"]
)
def test_the_face_is_documented(name):
    found = getattr(tickstate, name)
    assert len(inspect.getdoc(found) or "") > 10
    if name in ("run", "compute"):
        for parameter in inspect.signature(found).parameters:
            assert parameter in found.__doc__ or parameter in ("bronze", "silver", "workers"), parameter


def silver(lane=None):
    folder = bronze.tiny() / "silver/orderbook"
    paths = [bronze.part(bronze.tiny(), one, h) for one in (ALPHA, BETA) if lane in (None, one) for h in HOURS]
    assert folder.is_dir()
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths])


def test_compute_gives_what_run_writes():
    lanes = pa.concat_tables([bronze.walk(ALPHA), bronze.walk(BETA)])
    found = tickstate.compute(lanes)
    expected = silver()
    assert found.schema.equals(expected.schema)
    assert found.equals(expected)
    assert found.num_rows == 960


def test_compute_takes_rows_in_any_order():
    rows = bronze.walk(ALPHA, hours=1)
    backwards = rows.take(list(range(rows.num_rows))[::-1])
    found = tickstate.compute(backwards, "mid_price")
    assert found["capture_ts"].equals(tickstate.compute(rows, "mid_price")["capture_ts"])
    assert found["row_id"].to_pylist() == list(range(found.num_rows))


def test_compute_selects_and_configures():
    rows = bronze.walk(ALPHA, hours=1)
    found = tickstate.compute(rows, ["smart_depth"], config={"features": {"smart_depth": {"decay_bps": 3.0}}})
    assert "smart_bid_depth" in found.column_names
    assert "mid_price" not in found.column_names
    assert not found["smart_bid_depth"].equals(tickstate.compute(rows, "smart_bid_depth")["smart_bid_depth"])
    shallow = tickstate.compute(rows, "total_bid_depth", config={"run": {"depth": 1}})
    assert pc.all(
        pc.less_equal(shallow["total_bid_depth"], tickstate.compute(rows, "total_bid_depth")["total_bid_depth"])
    ).as_py()


def test_compute_needs_no_lane_and_no_optional_column():
    rows = bronze.walk(ALPHA, hours=1)
    plain = rows.select(["capture_ts", "timestamp", "bids", "asks"])
    found = tickstate.compute(plain, "mid_price")
    assert set(found["nonce"].to_pylist()) == {None}
    whole = tickstate.compute(rows, "mid_price")
    assert found["mid_price"].drop_null().equals(whole["mid_price"].drop_null())
    assert len(set(found["symbol"].to_pylist())) == 1


def test_compute_of_nothing_has_the_columns():
    found = tickstate.compute(bronze.SCHEMA.empty_table())
    assert found.num_rows == 0
    assert found.schema.equals(silver().schema)


def test_compute_takes_bronze_by_polars():
    rows = bronze.walk(ALPHA, hours=1)
    assert tickstate.compute(pl.from_arrow(rows).to_arrow(), "mid_price").equals(tickstate.compute(rows, "mid_price"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns("bids"), "no column 'bids'"),
        (lambda t: t.set_column(t.column_names.index("bids"), "bids", t["nonce"]), "column 'bids' is int64"),
        (lambda t: t.set_column(t.column_names.index("capture_ts"), "capture_ts", t["nonce"]), "capture_ts"),
        (
            lambda t: t.set_column(t.column_names.index("capture_ts"), "capture_ts", pa.nulls(len(t), bronze.TIME)),
            "nulls",
        ),
        (lambda t: t.set_column(t.column_names.index("symbol"), "symbol", pa.nulls(len(t), pa.string())), "symbol"),
    ],
)
def test_compute_says_what_is_wrong(change, says):
    with pytest.raises(TickstateError, match=says):
        tickstate.compute(change(bronze.walk(ALPHA, hours=1)))


def test_compute_refuses_two_lanes_of_one_name():
    """As a run does: rows of both would look like one lane's."""
    both = bronze.table([row(START, 100, lane=("a", "B/U")), row(START + 1, 5, lane=("a", "B-U"))])
    with pytest.raises(TickstateError, match="B-U"):
        tickstate.compute(both, "mid_price")


def test_compute_refuses_unknown_features():
    with pytest.raises(FeatureError, match="did you mean 'ofi'"):
        tickstate.compute(bronze.walk(ALPHA, hours=1), "ofy")


def test_run_says_what_is_wrong(tmp_path):
    lake = bronze.tiny()
    with pytest.raises(TickstateError, match="give lake="):
        tickstate.run()
    with pytest.raises(TickstateError, match="give lake="):
        tickstate.run(bronze=lake)
    with pytest.raises(TickstateError, match="runner 'dask'"):
        tickstate.run(lake, runner="dask")
    with pytest.raises(LakeError, match="no such folder"):
        tickstate.run(tmp_path)
    with pytest.raises(LakeError, match="did you mean 'BTC-USDT'"):
        tickstate.run(lake, symbol="BTC-USD")
    with pytest.raises(FeatureError, match="did you mean 'ofi'"):
        tickstate.run(lake, features=["spread", "ofy"])
    assert not list(tmp_path.iterdir())


def test_run_takes_one_name_or_several():
    lake = bronze.tiny()
    assert tickstate.run(lake, tier="silver", exchange="alpha", features="spread").partitions == 4
    assert (
        tickstate.run(
            lake, tier="silver", exchange=["alpha", "beta"], symbol=("BTC-USDT", "ETH-USDT"), channel="orderbook"
        ).partitions
        == 8
    )
    assert tickstate.run(str(lake), tier="silver", start="2024-03-02", end="2024-03-02T01").partitions == 2


def test_places_by_name_go_over_the_lake(tmp_path):
    found = tickstate.run(bronze.tiny(), silver=tmp_path / "s", exchange="beta", features="spread", runner="single")
    assert len(found.computed) == 4
    assert len(bronze.parquet(tmp_path / "s")) == 4


def test_scan_opens_everything_in_order():
    found = tickstate.scan(bronze.tiny() / "silver")
    assert isinstance(found, ds.Dataset)
    assert found.to_table().equals(silver())


@pytest.mark.parametrize("tier", ["silver", "bronze"])
def test_scan_chooses_lane_and_time(tier):
    dataset = tickstate.scan(
        bronze.tiny() / tier, exchange="alpha", symbol="BTC-USDT", start=HOURS[1], end=datetime(2024, 3, 2, 0, 30)
    )
    found = dataset.to_table()
    times = found["capture_ts"].to_pylist()
    assert min(times) >= datetime(2024, 3, 1, 23, tzinfo=UTC)
    assert max(times) < datetime(2024, 3, 2, 0, 30, tzinfo=UTC)
    whole = silver(ALPHA)["capture_ts"].to_pylist()
    expected = [t for t in whole if datetime(2024, 3, 1, 23, tzinfo=UTC) <= t < datetime(2024, 3, 2, 0, 30, tzinfo=UTC)]
    assert sorted(set(times)) == sorted(set(expected))
    assert set(found["exchange"].to_pylist()) == {"alpha"}
    assert len(dataset.files) < len(tickstate.scan(bronze.tiny() / tier).files)


def test_scan_reads_times_of_other_zones():
    zone = timezone(timedelta(hours=9))
    found = tickstate.scan(
        bronze.tiny() / "silver", exchange="alpha", end=datetime(2024, 3, 2, 8, tzinfo=zone)
    ).to_table()
    assert found.num_rows == 120
    assert set(found["hour"].to_pylist()) == {22}


def test_the_end_is_exclusive(tmp_path):
    for ts in (START + bronze.HOUR - 1, START + bronze.HOUR):
        bronze.write(tmp_path / "bronze", bronze.table([row(ts, 100)]))
    at = datetime(2024, 3, 1, 23, tzinfo=UTC)
    assert tickstate.scan(tmp_path / "bronze", end=HOURS[1]).count_rows() == 1
    assert tickstate.scan(tmp_path / "bronze", start=at).to_table()["capture_ts"].to_pylist() == [at]


def test_scan_is_read_by_polars():
    found = pl.scan_pyarrow_dataset(tickstate.scan(bronze.tiny() / "silver", exchange="beta"))
    frame = found.filter(pl.col("book_flag") == "ok").select("capture_ts", "mid_price").collect()
    expected = silver(BETA).filter(pc.equal(silver(BETA)["book_flag"], "ok"))
    assert frame["mid_price"].to_list() == expected["mid_price"].to_pylist()


def test_other_readers_just_work():
    """polars and pyarrow pointed at the channel's folder, without tickstate."""
    folder = bronze.tiny() / "silver/orderbook"
    frame = pl.read_parquet(f"{folder}/**/part-0.parquet")
    assert frame.height == 960
    assert pl.scan_parquet(folder, hive_partitioning=True).filter(pl.col("exchange") == "alpha").collect().height == 480
    found = ds.dataset(folder, partitioning="hive").to_table(filter=ds.field("symbol") == "ETH-USDT")
    assert found.num_rows == 480


def test_scan_ignores_unfinished_files_and_records(tmp_path):
    lake = bronze.copy_tiny(tmp_path / "lake")
    bronze.part(lake, ALPHA, HOURS[0]).with_name(".tmp-1-part-0.parquet").write_bytes(b"half")
    assert tickstate.scan(lake / "silver").count_rows() == 960


def test_scan_of_partitions_with_different_columns(tmp_path):
    """A feature added to one hour only: its column is there, null where it was not computed."""
    lake = bronze.make_lake(tmp_path, [ALPHA], hours=2)
    bronze.run(lake, features="mid_price")
    bronze.run(lake, features="spread", start=HOURS[1])
    found = tickstate.scan(lake / "silver").to_table()
    assert "spread" in found.column_names
    values = found["spread"].to_pylist()
    assert not any(values[:120])
    assert any(values[120:])


def test_scan_of_nothing_says_so(tmp_path):
    for chosen in ({"channel": "trades"}, {"exchange": "gamma"}, {"symbol": "BTC"}, {"start": "2030-01-01"}):
        with pytest.raises(LakeError, match="no partition fits"):
            tickstate.scan(bronze.tiny() / "silver", **chosen)
    with pytest.raises(LakeError):
        tickstate.scan(tmp_path)
