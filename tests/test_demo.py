"""The demo lake: seeded, and with every fault that its documentation promises."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import bronze
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import tickstate
from tickstate.lake import demo
from tickstate.lake.demo import ensure_demo, make_demo


@cache
def place() -> Path:
    """A demo lake, made once."""
    import atexit
    import shutil
    import tempfile

    found = Path(tempfile.mkdtemp(prefix="tickstate-demo-"))
    atexit.register(shutil.rmtree, found, ignore_errors=True)
    make_demo(found / "bronze")
    return found


def lanes(channel):
    """(exchange, symbol) -> its rows in the order of paths and rows."""
    found: dict[tuple[str, str], list[pa.Table]] = {}
    for path in sorted((place() / "bronze" / channel).rglob("*.parquet")):
        parts = dict(p.split("=") for p in path.parts if "=" in p)
        found.setdefault((parts["exchange"], parts["symbol"]), []).append(pq.read_table(path, partitioning=None))
    return {lane: pa.concat_tables(tables).sort_by("capture_ts") for lane, tables in found.items()}


FOUR = {(e, s) for e in ("alpha", "beta") for s in ("BTC-USDT", "ETH-USDT")}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    make_demo(tmp_path / "again")
    assert bronze.tree(tmp_path / "again") == bronze.tree(place() / "bronze")


def test_another_seed_gives_another_lake(tmp_path):
    make_demo(tmp_path / "other", seed=8)
    other, first = bronze.tree(tmp_path / "other"), bronze.tree(place() / "bronze")
    assert not any(other[name] == first.get(name) for name in other)


def test_two_exchanges_two_symbols_four_hours_over_midnight():
    for channel in ("orderbook", "trades", "ticker"):
        found = lanes(channel)
        assert found.keys() == FOUR
        hours = Counter()
        for table in found.values():
            hours.update(zip(table["day"].to_pylist(), table["hour"].to_pylist(), strict=True))
        assert hours.keys() == {(1, 22), (1, 23), (2, 0), (2, 1)}


def test_several_segments_an_hour():
    count = Counter(p.parent for p in (place() / "bronze").rglob("*.parquet"))
    assert min(count.values()) >= 6
    assert max(count.values()) == 12


def test_the_summary_counts_what_was_written(tmp_path):
    found = make_demo(tmp_path / "b")
    paths = list((tmp_path / "b").rglob("*.parquet"))
    assert (found.lanes, found.segments) == (4, len(paths))
    assert found.bytes == sum(p.stat().st_size for p in paths)
    for channel, rows in found.rows.items():
        assert rows == sum(pq.read_metadata(p).num_rows for p in (tmp_path / "b" / channel).rglob("*.parquet"))


def test_paths_are_padded_two_ways():
    names = {p.name for p in (place() / "bronze/orderbook").rglob("*") if p.is_dir()}
    assert {"month=3", "month=03", "hour=1", "hour=01", "day=2", "day=02"} <= names


def test_a_run_over_it_finds_every_flag_and_the_duplicates(tmp_path):
    summary = tickstate.run(
        bronze=place() / "bronze", silver=tmp_path, runner="single", channel="orderbook", features="mid_price"
    )
    assert (summary.exit_code, len(summary.computed)) == (0, 16)
    counters = summary.counters
    for flag in ("empty", "one_sided", "bad_value", "unsorted", "crossed", "locked"):
        assert counters[f"flag_{flag}"] >= 4 * demo.FEW, flag
    assert counters["duplicates"] == 4 * demo.FEW
    assert counters["out_of_order"] == 0
    found = {}
    for path in (tmp_path / "orderbook").rglob("part-0.parquet"):
        table = pq.read_table(path, partitioning=None, columns=["exchange", "symbol", "book_flag"])
        lane = (table["exchange"][0].as_py(), table["symbol"][0].as_py())
        found.setdefault(lane, Counter()).update(table["book_flag"].to_pylist())
    for lane, flags in found.items():
        assert set(flags) == {"ok", "empty", "one_sided", "bad_value", "unsorted", "crossed", "locked"}, lane
        assert flags["ok"] > 0.99 * sum(flags.values())


def test_null_lists_nan_null_prices_and_size_0():
    for lane, table in lanes("orderbook").items():
        asks = pc.list_flatten(table["asks"])
        assert table["bids"].null_count >= demo.FEW, lane
        assert pc.sum(pc.equal(pc.list_value_length(table["bids"]), 0)).as_py() >= 2 * demo.FEW
        assert pc.struct_field(asks, "price").null_count == demo.FEW
        bids = pc.list_flatten(table["bids"])
        assert pc.sum(pc.is_nan(pc.struct_field(bids, "price"))).as_py() == demo.FEW
        zeros = pc.sum(pc.equal(pc.struct_field(bids, "size"), 0.0)).as_py()
        assert zeros >= demo.FEW
        assert pc.max(pc.list_value_length(table["bids"])).as_py() == demo.LEVELS


def test_repeated_times_are_not_all_duplicates():
    for table in lanes("orderbook").values():
        times = bronze.times(table)
        assert np.sum(np.diff(times) == 0) > demo.FEW


def test_one_gap_of_ten_minutes():
    longest = {}
    for channel in ("orderbook", "trades", "ticker"):
        for lane, table in lanes(channel).items():
            longest[channel, lane] = int(np.diff(bronze.times(table)).max()) // bronze.SECOND
    at = ("orderbook", ("alpha", "ETH-USDT"))
    assert 600 <= longest[at] <= 610
    assert all(v < 60 for (c, lane), v in longest.items() if c == "orderbook" and (c, lane) != at)
    assert 600 <= longest["trades", ("alpha", "ETH-USDT")] < 700


def test_one_hour_without_trades():
    rows = {lane: Counter(t["hour"].to_pylist()) for lane, t in lanes("trades").items()}
    missing = [(lane, h) for lane, count in rows.items() for h in (22, 23, 0, 1) if not count[h]]
    assert missing == [(("beta", "BTC-USDT"), 23)]


def test_one_lane_has_no_nonce():
    nulls = {lane for lane, t in lanes("orderbook").items() if t["nonce"].null_count}
    assert nulls == {("beta", "ETH-USDT")}


def test_trades_stand_at_the_touch_with_a_side():
    for lane, trades in lanes("trades").items():
        sides = Counter(trades["side"].to_pylist())
        assert sides.keys() == {"buy", "sell", None}
        assert min(sides["buy"], sides["sell"]) > 0.3 * trades.num_rows
        assert 0 < sides[None] < 20
        books = lanes("orderbook")[lane]
        bids, asks = touch(books, "bids"), touch(books, "asks")
        ok = np.isfinite(bids) & np.isfinite(asks) & (bids < asks)
        at = np.searchsorted(bronze.times(books)[ok], bronze.times(trades), side="right") - 1
        price = trades["price"].to_numpy()
        touching = (price == bids[ok][at]) | (price == asks[ok][at])
        assert touching.mean() > 0.97, lane
        assert len(set(trades["trade_id"].to_pylist())) < trades.num_rows, "some were sent twice"


def touch(books, side):
    """Prices of level 0, NaN where there is none."""
    lengths = pc.fill_null(pc.list_value_length(books[side]), 0)
    filled = pc.if_else(
        pc.greater(lengths, 0), books[side], pa.scalar([{"price": np.nan, "size": 1.0}], books.schema.field(side).type)
    )
    price = pc.struct_field(pc.list_element(filled, 0), "price")
    return pc.fill_null(price, np.nan).to_numpy()


def test_books_look_like_books():
    for lane, table in lanes("orderbook").items():
        bids, asks = touch(table, "bids"), touch(table, "asks")
        mid = (bids + asks) / 2
        mid = mid[np.isfinite(mid)]
        assert 0.9 * np.median(mid) < mid.min() < mid.max() < 1.1 * np.median(mid), lane
        assert len(np.unique(mid)) > 100


def test_a_folder_with_a_lake_is_refused(tmp_path):
    (tmp_path / "trades").mkdir()
    with pytest.raises(FileExistsError, match="trades"):
        make_demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["trades"]


def test_ensure_makes_it_once(tmp_path, monkeypatch):
    calls = []

    def quick(root, **_):
        calls.append(root)
        (root / "orderbook").mkdir(parents=True)
        (root / "orderbook/x").write_text("x")

    monkeypatch.setattr(demo, "make_demo", quick)
    root = tmp_path / "lake/bronze"
    assert ensure_demo(root) is True
    assert ensure_demo(root) is False
    assert len(calls) == 1
    assert [p.name for p in (tmp_path / "lake").iterdir()] == ["bronze"]


def test_ensure_is_all_or_nothing(tmp_path, monkeypatch):
    """Stopped in the middle, it leaves no lake; the next call makes it whole."""
    root, write, count = tmp_path / "bronze", pq.write_table, []

    def fails(*args, **kwargs):
        count.append(1)
        if len(count) == 30:
            raise KeyboardInterrupt
        write(*args, **kwargs)

    monkeypatch.setattr(pq, "write_table", fails)
    with pytest.raises(KeyboardInterrupt):
        ensure_demo(root)
    assert not root.exists()
    monkeypatch.undo()
    assert ensure_demo(root)
    assert bronze.tree(root) == bronze.tree(place() / "bronze")
    assert [p.name for p in tmp_path.iterdir()] == ["bronze"]


def test_it_is_a_dataset_like_any_other():
    assert ds.dataset(place() / "bronze/ticker", partitioning=None).count_rows() > 10_000
