"""The deterministic writer and the atomic replace: bytes, checksums, hashes, and what a failure leaves."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from itertools import pairwise
from pathlib import Path

import bronze
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickstate.lake import files, write
from tickstate.lake.content import ContentHash, hash_file
from tickstate.lake.write import writing

ROWS = 1000


def sample(rows=ROWS, seed=0):
    rng = np.random.Generator(np.random.PCG64(seed))
    some = rng.random(rows) < 0.3
    return pa.table(
        {
            "capture_ts": pa.array(np.arange(rows), bronze.TIME),
            "nonce": pa.array(np.arange(rows), mask=some),
            "exchange": pa.array(["alpha"] * rows),
            "year": pa.array([2024] * rows, pa.int32()),
            "row_id": pa.array(np.arange(rows)),
            "book_flag": pa.array(np.array(["ok", "empty", "gekreuzt \u00e9"])[rng.integers(0, 3, rows)], mask=some),
            "mid_price": pa.array(rng.random(rows), mask=some),
            "weekend": pa.array(rng.random(rows) < 0.5, mask=some),
            "day_of_week": pa.array(rng.integers(1, 8, rows).astype(np.int8), mask=some),
        }
    )


def write_table(path, table, cuts=()):
    """Write a table in pieces; returns the content hash."""
    edges = [0, *sorted(cuts), table.num_rows]
    with writing(path, table.schema) as writer:
        for begin, end in pairwise(edges):
            writer.write(table.slice(begin, end - begin))
        return writer.close()


def names(folder):
    return [p.name for p in folder.iterdir()]


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(write, "ROW_GROUP_ROWS", 64)


CUTS = [(), (1,), (500,), range(1, ROWS, 7), (64, 128), (63, 65, 999), (0, 0, 1000)]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_the_same_rows_in_any_chunks_are_the_same_bytes(tmp_path, small_groups, cuts):
    whole = write_table(tmp_path / "whole.parquet", sample())
    found = write_table(tmp_path / "cut.parquet", sample(), cuts)
    assert found == whole
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=12), group=st.integers(1, 70))
def test_any_chunks_any_group(tmp_path_factory, cuts, group):
    place, table = tmp_path_factory.mktemp("w"), sample(200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "ROW_GROUP_ROWS", group)
        hashes = [write_table(place / "a.parquet", table), write_table(place / "b.parquet", table, cuts)]
    assert hashes[0] == hashes[1] == hash_file(str(place / "b.parquet"))
    assert (place / "a.parquet").read_bytes() == (place / "b.parquet").read_bytes()
    metadata = pq.read_metadata(place / "b.parquet")
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [group] * (200 // group) + ([200 % group] if 200 % group else [])


def test_pieces_of_arrow_arrays_and_dictionaries_do_not_show(tmp_path, small_groups):
    """A slice of a longer array, and many chunks, are the same values."""
    table = sample()
    padded = pa.concat_tables([sample(17, 5), table, sample(5, 6)]).slice(17, ROWS)
    write_table(tmp_path / "a.parquet", table)
    write_table(tmp_path / "b.parquet", padded)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_row_groups_are_of_a_fixed_size(tmp_path, small_groups):
    write_table(tmp_path / "a.parquet", sample(), range(1, ROWS, 13))
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    found = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert found == [64] * 15 + [40]


def test_a_partition_uses_the_fixed_size(tmp_path, small_groups):
    lake = bronze.make_lake(tmp_path, [bronze.ALPHA], hours=1, rows=200)
    assert bronze.run(lake, features=bronze.CHEAP).exit_code == 0
    metadata = pq.read_metadata(bronze.part(lake, bronze.ALPHA, bronze.HOURS[0]))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [64, 64, 64, 8]


def test_format():
    for path in (bronze.tiny() / "silver/orderbook").rglob("*.parquet"):
        metadata, schema = pq.read_metadata(path), pq.read_schema(path)
        assert metadata.format_version == "2.6"
        assert not [f for f in schema if pa.types.is_dictionary(f.type)]
        assert {metadata.row_group(0).column(i).compression for i in range(metadata.num_columns)} == {"ZSTD"}
        assert not (schema.metadata or {}), "nothing that may vary from run to run"


def test_nulls_are_nulls_and_no_nan_no_minus_zero():
    nulls = 0
    for path in (bronze.tiny() / "silver/orderbook").rglob("*.parquet"):
        found = pq.read_table(path, partitioning=None)
        for name in found.column_names:
            column = found[name].combine_chunks()
            nulls += column.null_count
            if pa.types.is_floating(column.type):
                values = column.drop_null().to_numpy()
                assert np.isfinite(values).all(), name
                assert not (np.signbit(values) & (values == 0)).any(), name
    assert nulls, "the tiny lake has undefined values"


def test_values_come_back(tmp_path, small_groups):
    write_table(tmp_path / "a.parquet", sample(), (1, 333))
    assert pq.read_table(tmp_path / "a.parquet").equals(sample())


def data_page(path, column="mid_price"):
    """A byte in the middle of a column's data."""
    metadata = pq.read_metadata(path)
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    found = metadata.row_group(0).column(names.index(column))
    return found.data_page_offset + found.total_compressed_size // 2


def test_every_flipped_byte_of_a_page_is_found(tmp_path):
    """Page checksums are in the file: without them zstd would notice most, but not all."""
    path = tmp_path / "a.parquet"
    write_table(path, sample(50))
    whole = path.read_bytes()
    metadata = pq.read_metadata(path)
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    column = metadata.row_group(0).column(names.index("mid_price"))
    end = column.data_page_offset + column.total_compressed_size
    broken = 0
    for at in range(end - 100, end):  # the page's end: values, not its header
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(OSError, match=r"(?i)crc|checksum"):
            pq.read_table(path, page_checksum_verification=True)
        broken += 1
    assert broken == 100


def test_checksums_stand_in_every_partition(tmp_path):
    lake = bronze.copy_tiny(tmp_path / "lake")
    for path in (lake / "silver/orderbook").rglob("*.parquet"):
        whole, at = path.read_bytes(), data_page(path)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(OSError, match=r"(?i)crc|checksum"):
            hash_file(str(path))


def test_content_hash_of_what_is_read_back(tmp_path, small_groups):
    written = write_table(tmp_path / "a.parquet", sample(), (7, 300))
    assert written == hash_file(str(tmp_path / "a.parquet"))
    pq.write_table(sample(), tmp_path / "b.parquet", compression="none", row_group_size=10, version="1.0")
    assert written == hash_file(str(tmp_path / "b.parquet")), "however the values are encoded"
    assert len(written) == 32


def test_records_hold_the_hash_of_their_file():
    lake = bronze.tiny()
    for lane in (bronze.ALPHA, bronze.BETA):
        for hour in bronze.HOURS:
            record = json.loads(bronze.commit(lake, lane, hour).read_text())
            path = bronze.part(lake, lane, hour)
            assert (record["content"], record["size"]) == (hash_file(str(path)), path.stat().st_size)


def set_value(table, name, at, value):
    column = table[name].to_pylist()
    column[at] = value
    return table.set_column(table.column_names.index(name), name, pa.array(column, table.schema.field(name).type))


DIFFER = {
    "a double": lambda t: set_value(t, "mid_price", 77, 0.123),
    "a null": lambda t: set_value(t, "mid_price", 77, None),
    "a text": lambda t: set_value(t, "book_flag", 3, "crossed"),
    "a null text or an empty one": lambda t: set_value(t, "book_flag", 3, ""),
    "a bool": lambda t: set_value(t, "weekend", 9, not t["weekend"][9].as_py()),
    "a time": lambda t: set_value(t, "capture_ts", 0, -1),
    "the partition": lambda t: t.set_column(2, "exchange", pa.array(["beta"] * len(t))),
    "a row less": lambda t: t.slice(0, len(t) - 1),
    "two rows exchanged": lambda t: t.take(pa.array([1, 0, *range(2, len(t))])),
    "a column's name": lambda t: t.rename_columns([n if n != "mid_price" else "spread" for n in t.column_names]),
    "a column's type": lambda t: t.set_column(8, "day_of_week", t["day_of_week"].cast(pa.int64())),
    "where texts end": lambda t: set_value(set_value(t, "book_flag", 0, "ab"), "book_flag", 1, "c"),
}


def hashed(table):
    found = ContentHash(table.schema)
    found.update(table)
    return found.hexdigest()


def test_the_hash_passes_over_chunks_of_no_rows():
    base = sample(100)
    chunks = [base.slice(0, 0), base.slice(0, 7), base.slice(7, 0), base.slice(7)]
    assert hashed(pa.concat_tables(chunks)) == hashed(base)


@pytest.mark.parametrize("what", DIFFER)
def test_the_hash_tells_apart(what):
    base = sample(100)
    if what == "where texts end":
        base = set_value(set_value(base, "book_flag", 0, "a"), "book_flag", 1, "bc")
    if what.startswith("a null text"):
        base = set_value(base, "book_flag", 3, None)
    if what == "a null":
        base = set_value(base, "mid_price", 77, 0.5)
    if what == "a bool":
        base = set_value(base, "weekend", 9, True)
    assert hashed(base) != hashed(DIFFER[what](base))


def full_disk(name, at):
    def hook(step):
        if step == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), at)

    return hook


def steps_of(action):
    """The names of the steps that an action goes through."""
    found = []
    old, files.hook = files.hook, found.append
    try:
        action()
    finally:
        files.hook = old
    return found


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, small_groups, monkeypatch):
    path = tmp_path / "a.parquet"
    steps = steps_of(lambda: write_table(path, sample(seed=1)))
    before = path.read_bytes()
    assert len(set(steps)) >= 5
    for name in dict.fromkeys(steps[: steps.index("data:replaced")]):
        monkeypatch.setattr(files, "hook", full_disk(name, path))
        with pytest.raises(OSError, match="No space left"):
            write_table(path, sample(seed=2))
        assert path.read_bytes() == before, name
        assert names(tmp_path) == ["a.parquet"], name
    monkeypatch.setattr(files, "hook", None)
    write_table(path, sample(seed=2))
    assert path.read_bytes() != before, "else the above shows nothing"


def test_a_disk_that_is_full_while_rows_are_encoded(tmp_path, small_groups, monkeypatch):
    """The first error is the one that is said, also when the footer fails as well."""
    path = tmp_path / "a.parquet"
    write_table(path, sample(seed=1))
    before = path.read_bytes()

    close, calls = pq.ParquetWriter.close, []

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close_fails(self):
        # no reference to the writer: its __del__ would run while the patch is undone, and crash the interpreter
        calls.append("close")
        full() if len(calls) == 1 else close(self)  # the second is its __del__

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    monkeypatch.setattr(pq.ParquetWriter, "close", close_fails)
    with pytest.raises(OSError, match="No space left"):
        write_table(path, sample(seed=2), range(1, ROWS, 100))
    assert calls
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.parquet"]


def test_a_small_file_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    steps = steps_of(lambda: files.write_bytes(path, b"old", "commit"))
    for name in steps[: steps.index("commit:replaced")]:
        monkeypatch.setattr(files, "hook", full_disk(name, path))
        with pytest.raises(OSError, match="No space left"):
            files.write_bytes(path, b"new", "commit")
        assert (path.read_bytes(), names(tmp_path)) == (b"old", ["record.json"])


def test_a_full_disk_fails_the_partition_and_the_next_run_makes_it(tmp_path, monkeypatch):
    lake = bronze.copy_tiny(tmp_path / "lake")
    expected = bronze.tree(lake / "silver")
    target = bronze.part(lake, bronze.ALPHA, bronze.HOURS[1])
    bronze.commit(lake, bronze.ALPHA, bronze.HOURS[1]).unlink()
    bronze.commit(lake, bronze.BETA, bronze.HOURS[1]).unlink()
    count = []

    def once(step):
        if step == "data:written":
            count.append(step)
            if len(count) == 1:
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "hook", once)
    summary = bronze.run(lake)
    assert (summary.exit_code, len(summary.failed), len(summary.computed)) == (1, 1, 1)
    assert "No space left" in summary.failed[0].error
    assert target.read_bytes() == expected[str(target.relative_to(lake / "silver"))]
    assert bronze.left_over(lake) == []
    summary = bronze.run(lake)
    assert (summary.exit_code, len(summary.computed)) == (0, 1)
    assert bronze.tree(lake / "silver") == expected


def test_the_folder_is_synced_after_the_replace(tmp_path, monkeypatch):
    """Temporary file, fsync, replace, fsync of the folder: in that order."""
    log, fsync, replace = [], os.fsync, os.replace

    def sync(descriptor):
        log.append("fsync " + ("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"))
        fsync(descriptor)

    def move(a, b):
        log.append(f"replace {Path(a).parent == Path(b).parent}")
        replace(a, b)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", move)
    write_table(tmp_path / "a.parquet", sample())
    assert log == ["fsync file", "replace True", "fsync folder"]


def test_doubles_keep_their_bits(tmp_path):
    odd = struct.unpack("<4d", bytes(range(32)))
    table = pa.table({"mid_price": pa.array([*odd, 5e-324, 1.7976931348623157e308])})
    write_table(tmp_path / "a.parquet", table)
    back = pq.read_table(tmp_path / "a.parquet")["mid_price"].to_numpy()
    assert back.tobytes() == table["mid_price"].to_numpy().tobytes()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here: whether a process waits is unknown")
def test_what_a_killed_process_left_is_removed_before_it_is_reaped(tmp_path):
    """A killed worker may stay as a zombie, for ever where nobody reaps; what a live one writes is let be."""
    path = tmp_path / "part-0.parquet"
    child = os.fork()
    if not child:
        path.with_name(f"{files.TEMPORARY}{files._host()}-{os.getpid()}-{path.name}").write_bytes(b"PAR1")
        os._exit(0)
    while Path(f"/proc/{child}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z":
        pass
    live = tmp_path / f"{files.TEMPORARY}{files._host()}-{os.getppid()}-other.parquet"
    live.touch()
    assert files.remove_leftovers(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == [live.name]
    os.waitpid(child, 0)
