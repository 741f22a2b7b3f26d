"""Broken and hostile bronze: each file set aside with its reason, bronze untouched, all else done."""

from __future__ import annotations

import json
import os
import shutil

import bronze
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, BETA, HOURS, SECOND, START, row

import tickstate
from tickstate.lake.errors import REASONS

AT = START + bronze.HOUR  # the second hour of the tiny lake
EVIL = bronze.table([row(AT + 1800 * SECOND + i, 480 + i) for i in range(50)])
GOOD = bronze.bronze_folder


def replaced(name, values, kind=None, found=EVIL):
    return found.set_column(
        found.column_names.index(name), name, pa.array(values, kind or found.schema.field(name).type)
    )


def as_bytes(found, **options):
    sink = pa.BufferOutputStream()
    pq.write_table(found, sink, **options)
    return sink.getvalue().to_pybytes()


def shifted(by):
    return replaced("capture_ts", [AT + by + i for i in range(50)])


def one_off(name, value):
    """A column whose value in the middle is another."""
    values = EVIL[name].to_pylist()
    values[25] = value
    return replaced(name, values)


def damaged(column="bids.list.element.price"):
    """A flipped byte in the data of a wide column: the footer and the times are sound."""
    found = bytearray(as_bytes(EVIL, write_page_checksum=True, compression="none", use_dictionary=False))
    metadata = pq.read_metadata(pa.BufferReader(bytes(found)))
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    chunk = metadata.row_group(0).column(names.index(column))
    found[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    return bytes(found)


def not_null_levels():
    struct = pa.struct([("price", pa.float32()), ("size", pa.float64())])
    return replaced("bids", EVIL["bids"].to_pylist(), pa.list_(struct))


BAD = {
    "empty file": (lambda: b"", "unreadable"),
    "text": (lambda: b"capture_ts,price\n1,2\n" * 100, "unreadable"),
    "only magic": (lambda: b"PAR1PAR1", "unreadable"),
    "footer length beyond the file": (lambda: b"PAR1" + b"\xff\xff\xff\x7fPAR1", "unreadable"),
    "footer of noise": (lambda: b"PAR1" + bytes(range(200)) + b"\xc8\0\0\0PAR1", "unreadable"),
    "cut in the footer": (lambda: as_bytes(EVIL)[:-20], "unreadable"),
    "cut in the data": (lambda: as_bytes(EVIL)[:500], "unreadable"),
    "cut in front": (lambda: as_bytes(EVIL)[500:], ("unreadable", "corrupt")),
    "no capture_ts": (lambda: as_bytes(EVIL.drop_columns("capture_ts")), "missing_column"),
    "no bids": (lambda: as_bytes(EVIL.drop_columns("bids")), "missing_column"),
    "no symbol": (lambda: as_bytes(EVIL.drop_columns("symbol")), "missing_column"),
    "no columns": (lambda: as_bytes(pa.table({})), "missing_column"),
    "times as text": (lambda: as_bytes(replaced("capture_ts", ["x"] * 50, pa.string())), "wrong_type"),
    "times in ns": (lambda: as_bytes(replaced("capture_ts", [0] * 50, pa.timestamp("ns", "UTC"))), "wrong_type"),
    "times without a zone": (lambda: as_bytes(replaced("capture_ts", [AT] * 50, pa.timestamp("us"))), "wrong_type"),
    "nonce as double": (lambda: as_bytes(replaced("nonce", [1.5] * 50, pa.float64())), "wrong_type"),
    "bids as numbers": (lambda: as_bytes(replaced("bids", [1.0] * 50, pa.float64())), "wrong_type"),
    "bids as lists": (lambda: as_bytes(replaced("bids", [[1.0]] * 50, pa.list_(pa.float64()))), "wrong_type"),
    "prices single": (lambda: as_bytes(not_null_levels()), "wrong_type"),
    "two columns of a name": (
        lambda: as_bytes(pa.Table.from_arrays([*EVIL.columns, EVIL["nonce"]], names=[*EVIL.column_names, "nonce"])),
        "wrong_type",
    ),
    "nonce beyond int64": (lambda: as_bytes(replaced("nonce", [1 << 63] * 50, pa.uint64())), ("corrupt", "wrong_type")),
    "another symbol": (lambda: as_bytes(replaced("symbol", ["ETH-USDT"] * 50)), "path_mismatch"),
    "one row of another symbol": (lambda: as_bytes(one_off("symbol", "ETH-USDT")), "path_mismatch"),
    "one row without an exchange": (lambda: as_bytes(one_off("exchange", None)), "path_mismatch"),
    "another day": (lambda: as_bytes(replaced("day", [2] * 50)), "path_mismatch"),
    "one row of another hour": (lambda: as_bytes(one_off("hour", 22)), "path_mismatch"),
    "symbol with a path": (lambda: as_bytes(replaced("symbol", ["../../x"] * 50)), "path_mismatch"),
    "an hour early": (lambda: as_bytes(shifted(-1)), "wrong_hour"),
    "one row an hour late": (lambda: as_bytes(one_off("capture_ts", AT + bronze.HOUR)), "wrong_hour"),
    "times far out": (lambda: as_bytes(one_off("capture_ts", 2**62)), "wrong_hour"),
    "times far back": (lambda: as_bytes(one_off("capture_ts", -(2**62))), "wrong_hour"),
    "a null time": (lambda: as_bytes(one_off("capture_ts", None)), "bad_time"),
    "damaged page": (damaged, "corrupt"),
    "damaged times": (lambda: damaged("capture_ts"), "corrupt"),
}  # fmt: skip


@pytest.fixture
def lake(tmp_path):
    """A copy in a folder of its own, so that what is written beside the lake shows."""
    return bronze.copy_tiny(tmp_path / "around/lake")


def outside(lake):
    """All that stands beside bronze and silver."""
    return [
        str(p) for p in lake.parent.rglob("*") if lake / "bronze" not in p.parents and lake / "silver" not in p.parents
    ]


EVIL_PATH = f"orderbook/{bronze.folder(ALPHA, AT)}/zz-evil.parquet"


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_set_aside(lake, what):
    make, reasons = BAD[what]
    reasons = (reasons,) if isinstance(reasons, str) else reasons
    good = bronze.parquet(lake / "silver")
    path = lake / "bronze" / EVIL_PATH
    path.write_bytes(make())
    before, beside = bronze.tree(lake / "bronze"), outside(lake)
    summary = bronze.run(lake)
    assert (summary.exit_code, summary.failed) == (1, []), [o.error for o in summary.failed]
    assert bronze.computed(summary) == [("alpha/BTC-USDT", h) for h in HOURS[1:3]]
    [found] = summary.quarantined
    assert found.path == EVIL_PATH
    assert found.reason in reasons
    assert found.reason in REASONS
    assert found.detail
    assert "\n" not in found.detail, "one line"
    [entry] = bronze.quarantine(lake)
    assert (entry["path"], entry["reason"], entry["detail"]) == (found.path, found.reason, found.detail)
    assert bronze.parquet(lake / "silver") == good, "as if it were not there"
    assert bronze.tree(lake / "bronze") == before
    assert outside(lake) == beside
    assert bronze.left_over(lake) == []
    again = bronze.run(lake)
    assert (again.exit_code, again.computed, again.quarantined) == (1, [], [found]), "known, and still said"


@pytest.mark.parametrize("what", ["empty file", "no bids", "damaged page", "one row of another symbol"])
def test_a_mended_file_is_read(lake, tmp_path, what):
    path = lake / "bronze" / EVIL_PATH
    path.write_bytes(BAD[what][0]())
    bronze.run(lake)
    assert len(bronze.quarantine(lake)) == 1
    mended = bytearray(path.read_bytes()) if what == "damaged page" else None
    path.write_bytes(as_bytes(EVIL, write_page_checksum=True, compression="none", use_dictionary=False))
    if mended is not None:
        assert len(mended) == path.stat().st_size, "footer and size are as they were"
    summary = bronze.run(lake)
    assert summary.exit_code == 0
    assert bronze.computed(summary) == [("alpha/BTC-USDT", h) for h in HOURS[1:3]]
    assert bronze.quarantine(lake) == []
    fresh = tmp_path / "fresh"
    shutil.copytree(lake / "bronze", fresh / "bronze")
    bronze.run(fresh)
    assert bronze.tree(fresh / "silver") == bronze.tree(lake / "silver")


def test_a_removed_file_is_forgotten(lake):
    before = bronze.tree(lake / "silver")
    path = lake / "bronze" / EVIL_PATH
    path.write_bytes(b"")
    bronze.run(lake)
    path.unlink()
    assert bronze.run(lake).exit_code == 0
    assert bronze.tree(lake / "silver") == before


def test_several_bad_files_in_one_run(lake):
    for i, what in enumerate(("text", "no bids", "damaged page", "times far out")):
        (lake / "bronze" / EVIL_PATH).with_name(f"{i}.parquet").write_bytes(BAD[what][0]())
    bad = GOOD(lake, BETA, HOURS[1]) / "bad.parquet"
    bad.write_bytes(b"x")
    summary = bronze.run(lake)
    assert [q.reason for q in summary.quarantined] == [
        "unreadable",
        "missing_column",
        "corrupt",
        "wrong_hour",
        "unreadable",
    ]
    assert sorted(q["path"] for q in bronze.quarantine(lake)) == [q.path for q in summary.quarantined]
    assert len(summary.computed) == 4


def test_an_hour_of_bad_files_only(tmp_path):
    """Its partition has no row, and says why; the next hour begins without history."""
    lake = bronze.make_lake(tmp_path, [ALPHA], hours=2)
    for path in GOOD(lake, ALPHA, HOURS[0]).iterdir():
        path.write_bytes(path.read_bytes()[:100])
    summary = bronze.run(lake)
    assert (summary.exit_code, len(summary.computed), len(summary.quarantined)) == (1, 2, 3)
    assert pq.read_metadata(bronze.part(lake, ALPHA, HOURS[0])).num_rows == 0
    only = tmp_path / "only"
    shutil.copytree(GOOD(lake, ALPHA, HOURS[1]), GOOD(only, ALPHA, HOURS[1]))
    bronze.run(only)
    assert bronze.part(only, ALPHA, HOURS[1]).read_bytes() == bronze.part(lake, ALPHA, HOURS[1]).read_bytes()


@pytest.mark.xfail(strict=True, reason="the record names a damaged page of the lookback only where it was read")
def test_single_and_batch_say_the_same_of_bad_files(lake, tmp_path):
    for i, what in enumerate(("text", "damaged page", "no bids")):
        (lake / "bronze" / EVIL_PATH).with_name(f"{i}.parquet").write_bytes(BAD[what][0]())
    found = []
    for name in ("one", "two"):
        silver = tmp_path / name
        summary = tickstate.run(
            bronze=lake / "bronze", silver=silver, runner="single" if name == "one" else "batch", workers=2
        )
        assert summary.exit_code == 1
        found.append((bronze.tree(silver), summary.quarantined))
    assert found[0] == found[1]
    assert len(found[0][1]) == 3


@pytest.mark.xfail(strict=True, reason="the record names a damaged page of the lookback only where it was read")
def test_an_hour_alone_has_the_record_of_the_whole_run(tmp_path):
    """Also where a file that only the hour before needs turns out to be damaged while it is read."""
    lake = bronze.make_lake(tmp_path / "lake", [ALPHA], hours=2)
    early = bronze.table([row(START + 60 * SECOND + i, 480 + i) for i in range(50)])  # out of reach of the lookback
    content = bytearray(as_bytes(early, write_page_checksum=True, compression="none", use_dictionary=False))
    metadata = pq.read_metadata(pa.BufferReader(bytes(content)))
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    chunk = metadata.row_group(0).column(names.index("asks.list.element.size"))
    content[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    (GOOD(lake, ALPHA, HOURS[0]) / "damaged.parquet").write_bytes(content)
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    both = tickstate.run(bronze=lake / "bronze", silver=whole, runner="single")
    assert [q.reason for q in both.quarantined] == ["corrupt"]
    tickstate.run(bronze=lake / "bronze", silver=alone, runner="single", start=HOURS[1])
    assert bronze.parquet(alone).items() <= bronze.parquet(whole).items()
    assert bronze.tree(alone).items() <= bronze.tree(whole).items(), "the commit record as well"


def test_the_next_hour_does_not_forget_the_bad_files_of_this_one(lake):
    """Made again alone, it reads too little of this hour to find the damage: no proof that there is none."""
    (lake / "bronze" / EVIL_PATH).write_bytes(BAD["damaged page"][0]())
    assert bronze.run(lake).exit_code == 1
    [entry] = bronze.quarantine(lake)
    bronze.part(lake, ALPHA, HOURS[2]).unlink()
    again = bronze.run(lake)
    assert bronze.computed(again) == [("alpha/BTC-USDT", HOURS[2])]
    assert again.exit_code == 1
    assert bronze.quarantine(lake) == [entry]


@pytest.mark.parametrize(
    "symbol",
    ["..%2F..%2Fx", "%2Fetc", "..", ".x", "-x", "a%00b", "a%0Ab", "x" * 65, "%FF", "a b", "a%5Cb", "$HOME", "%25"],
)
@pytest.mark.parametrize("column", ["exchange", "symbol"])
def test_names_that_would_lead_elsewhere(lake, symbol, column):
    silver, beside = bronze.tree(lake / "silver"), outside(lake)
    folder = bronze.folder(ALPHA, AT).replace(f"{column}={ALPHA[column == 'symbol']}", f"{column}={symbol}")
    path = lake / "bronze/orderbook" / folder / "a.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(as_bytes(replaced(column, ["../../x"] * 50)))
    summary = bronze.run(lake)
    assert summary.exit_code == 1
    assert summary.failed == []
    assert [(q.path, q.reason) for q in summary.quarantined] == [(f"orderbook/{folder}/a.parquet", "bad_name")]
    assert bronze.parquet(lake / "silver").keys() == {k for k in silver if k.endswith(".parquet")}
    assert outside(lake) == beside


def test_a_file_whose_path_is_wrong_is_recorded(lake):
    """Not only in the summary of this run: `silver/_quarantine` lists it as well."""
    path = lake / "bronze/orderbook/lost/a.parquet"
    path.parent.mkdir()
    path.write_bytes(as_bytes(EVIL))
    summary = bronze.run(lake)
    assert [q.reason for q in summary.quarantined] == ["bad_path"]
    assert [q["reason"] for q in bronze.quarantine(lake)] == ["bad_path"]


def test_only_bad_paths(tmp_path):
    path = tmp_path / "bronze/orderbook/lost/a.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(as_bytes(EVIL))
    summary = bronze.run(tmp_path)
    assert (summary.exit_code, summary.partitions, len(summary.quarantined)) == (1, 0, 1)


def test_files_that_would_decode_to_too_much(lake, monkeypatch):
    good = bronze.parquet(lake / "silver")
    path = lake / "bronze" / EVIL_PATH
    rows = 3000
    wide = bronze.table([row(AT + i, 480) for i in range(rows)])
    pq.write_table(wide, path, compression="zstd")
    assert path.stat().st_size < 200_000, "small, and yet"
    monkeypatch.setattr("tickstate.lake.segment.MAX_DECODED_BYTES", 300_000)
    summary = bronze.run(lake)
    assert summary.exit_code == 1
    assert [(q.path, q.reason) for q in summary.quarantined] == [(EVIL_PATH, "too_large")]
    assert "300,000" in summary.quarantined[0].detail
    assert bronze.parquet(lake / "silver") == good


def test_a_footer_that_claims_more_rows_than_there_can_be(tmp_path):
    """Run lengths: millions of equal rows in a few kilobytes."""
    n = 3_000_000
    levels = pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], bronze.LEVEL))
    constant = {
        f.name: pa.repeat(pa.scalar(row(AT)[f.name], f.type), n)
        for f in bronze.SCHEMA
        if f.name not in ("bids", "asks")
    }
    found = pa.table({**constant, "bids": levels, "asks": levels}).select(bronze.SCHEMA.names)
    path = bronze.write(tmp_path / "bronze", found, compression="zstd")
    assert path.stat().st_size < 1 << 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tickstate.lake.segment.MAX_DECODED_BYTES", 100 << 20)
        assert [q.reason for q in bronze.run(tmp_path).quarantined] == ["too_large"]


def test_a_row_with_a_hundred_thousand_levels(tmp_path):
    """No reason to drop it: the first `depth` levels are the book, and flags look at all of them."""
    n = 100_000
    deep = row(AT, 100) | {
        "bids": [{"price": 99.5 - 0.0005 * i, "size": 1.0} for i in range(n)],
        "asks": [{"price": 100.5 + 0.5 * i, "size": 1.0} for i in range(n)],
    }
    bad = row(AT + 1, 100) | {"bids": [*deep["bids"][:-1], {"price": 99.0, "size": 1.0}], "asks": deep["asks"]}
    bronze.write(tmp_path / "bronze", bronze.table([deep, bad, row(AT + 2, 101)]))
    summary = bronze.run(tmp_path, features=("mid_price", "total_bid_depth"))
    assert summary.exit_code == 0
    found = bronze.silver(tmp_path)
    assert [r["book_flag"] for r in found] == ["ok", "unsorted", "ok"]
    assert [r["total_bid_depth"] for r in found][:2] == [20.0, None]
    assert [r["mid_price"] for r in found] == [100, None, 101]


def test_statistics_that_lie_are_not_more_than_values(lake):
    """Without statistics, every value is looked at."""
    path = lake / "bronze" / EVIL_PATH
    path.write_bytes(as_bytes(one_off("symbol", "ETH-USDT"), write_statistics=False))
    assert [q.reason for q in bronze.run(lake).quarantined] == ["path_mismatch"]
    path.write_bytes(as_bytes(EVIL, write_statistics=False))
    assert bronze.run(lake).exit_code == 0


def test_polars_long_symbols_are_read(tmp_path):
    """Writers cut long texts in statistics."""
    lane = ("alpha", "A" * 64)
    path = bronze.write(tmp_path / "bronze", bronze.table([row(AT, 100, lane=lane)]))
    pl.from_arrow(pq.read_table(path, partitioning=None)).write_parquet(path)
    assert bronze.run(tmp_path).exit_code == 0


@pytest.mark.parametrize("kind", ["to nothing", "to its folder", "fifo", "folder"])
def test_things_that_are_no_files(lake, kind):
    """Dangling and circular links, pipes: no traceback, no waiting for ever, all else up to date."""
    path = lake / "bronze" / EVIL_PATH
    if kind == "to nothing":
        path.symlink_to("nowhere")
    elif kind == "to its folder":
        (path.parent / "loop").symlink_to(".")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    found = bronze.features("plan", "--lake", lake, timeout=10)
    assert "Traceback" not in found.stderr
    assert found.returncode in (0, 1)
    assert bronze.features("run", "--runner", "single", "--lake", lake, timeout=10).returncode in (0, 1)


def test_the_command_line_says_it_in_one_line_each(lake):
    (lake / "bronze" / EVIL_PATH).write_bytes(b"text")
    found = bronze.features("run", "--runner", "single", "--lake", lake)
    assert found.returncode == 1
    [line] = [x for x in found.stdout.splitlines() if x.startswith("quarantined")]
    assert EVIL_PATH in line
    assert "unreadable" in line
    assert "Traceback" not in found.stdout + found.stderr
    found = bronze.features("run", "--lake", lake, "--json", "--workers", 2)
    assert found.returncode == 1
    [entry] = json.loads(found.stdout)["quarantined"]
    assert (entry["path"], entry["reason"]) == (EVIL_PATH, "unreadable")
    found = bronze.features("plan", "--lake", lake)
    assert found.returncode == 0
    assert EVIL_PATH in found.stdout


def test_records_that_hold_paths_are_not_followed(lake, tmp_path):
    """A record is data: one that names another place makes no run write there, nor read a secret from there."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    record = bronze.commit(lake, ALPHA, HOURS[1])
    found = json.loads(record.read_text())
    found["quarantined"] = [{"path": "../../../secret", "reason": "unreadable", "detail": "", "fingerprint": ""}]
    record.write_text(json.dumps(found))
    beside = outside(lake)
    bronze.run(lake)
    assert outside(lake) == beside
    assert secret.read_text() == "x"
