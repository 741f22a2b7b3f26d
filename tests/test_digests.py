"""Digests of bronze are kept from run to run, by size and modification time."""

from __future__ import annotations

import os

import bronze
import pytest

from tickstate.lake import segment as segments
from tickstate.lake.listing import list_channel
from tickstate.lake.segment import Files

OLD = 1_700_000_000_000_000_000


@pytest.fixture
def listed(tmp_path):
    """A file of an hour, made long ago, as a function: it is listed anew each time."""
    lake = bronze.make_lake(tmp_path / "lake", lanes=(bronze.ALPHA,), hours=1)
    for path in (lake / "bronze").rglob("*.parquet"):
        os.utime(path, ns=(OLD, OLD))

    def first():
        lanes = list_channel(lake / "bronze", "orderbook").lanes
        return next(s for hours in lanes.values() for hour in hours.values() for s in hour)

    return first


@pytest.fixture
def cache(tmp_path, listed):
    """A cache that knows the file."""
    files = Files(tmp_path / "digests")
    files.digest(listed())
    files.save()
    return tmp_path / "digests"


@pytest.fixture
def opened(monkeypatch):
    """The files whose footers were read."""
    found, read = [], segments.file_digest
    monkeypatch.setattr(segments, "file_digest", lambda s: found.append(s.where) or read(s))
    return found


def test_a_known_file_is_not_opened(listed, cache, opened):
    fresh = Files()
    assert Files(cache).digest(listed()) == fresh.digest(listed())
    assert len(opened) == 1, "by the one without a cache"


@pytest.mark.parametrize("what", ["time", "size"])
def test_a_changed_file_is_opened(listed, cache, opened, what):
    path = listed().path
    if what == "size":
        with open(path, "ab") as file:
            file.write(b"x")
        os.utime(path, ns=(OLD, OLD))
    else:
        os.utime(path, ns=(OLD, OLD + 1))
    Files(cache).digest(listed())
    assert len(opened) == 1


def test_a_young_file_is_not_kept(listed, tmp_path, opened):
    os.utime(listed().path)
    for _ in range(2):
        files = Files(tmp_path / "young")
        files.digest(listed())
        files.save()
    assert len(opened) == 2, "it may change again within the resolution of its time"


@pytest.mark.parametrize("data", [b"", b"no cache", b"\x81\xa1x\xa1y"])
def test_a_damaged_cache_is_none(listed, cache, opened, data):
    cache.write_bytes(data)
    Files(cache).digest(listed())
    assert len(opened) == 1


def test_a_full_disk_costs_the_cache_alone(listed, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments, "write_bytes", full)
    files = Files(tmp_path / "digests")
    files.digest(listed())
    files.save()
    assert not (tmp_path / "digests").exists()


def test_a_run_keeps_them(tmp_path, opened):
    lake = bronze.make_lake(tmp_path / "lake", lanes=(bronze.ALPHA,), hours=2)
    for path in (lake / "bronze").rglob("*.parquet"):
        os.utime(path, ns=(OLD, OLD))
    assert bronze.run(lake, features="spread").exit_code == 0
    assert opened
    opened.clear()
    assert bronze.run(lake, features="spread").up_to_date == 2
    assert opened == []
