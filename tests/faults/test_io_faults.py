"""Disks that are full or fail: the n-th write of a run fails, for n = 1, 2, ... until a run is clean."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import shutil
import threading

import bronze
import filelock
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, HOURS, SECOND, START
from faults.delivery import FAR, differences, tree
from faults.test_watch_faults import Reader

from tickstate.runners.run import run_single
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher

FEATURES = ("mid_price", "ofi")


class Disk:
    """Counts what is written, and fails at the n-th time."""

    def __init__(self, patch, code):
        self.count, self.fail_at, self.code, self.failed = 0, 0, code, ""
        self._lock = threading.Lock()
        wrapped = [
            (os, "replace"), (os, "fsync"), (pathlib.Path, "mkdir"), (pathlib.Path, "write_bytes"),
            (pq.ParquetWriter, "__init__"), (pq.ParquetWriter, "write_table"), (pq.ParquetWriter, "close"),
            (filelock.FileLock, "_acquire"),
        ]  # fmt: skip
        for place, name in wrapped:
            patch.setattr(place, name, self._counting(getattr(place, name), f"{place.__name__}.{name}"))

    def _counting(self, real, name):
        def wrapper(*args, **kwargs):
            if self.fail_at:
                with self._lock:  # a worker writes from two threads
                    self.count += 1
                    fails = self.count == self.fail_at
                if fails:
                    self.failed = name
                    if name.endswith("write_bytes"):
                        real(args[0], args[1][: len(args[1]) // 2])  # half of it goes to the disk
                    raise OSError(self.code, os.strerror(self.code))
            return real(*args, **kwargs)

        return wrapper

    def begin(self, n):
        self.count, self.fail_at, self.failed = 0, n, ""

    def end(self):
        self.fail_at = 0
        return self.failed


class World:
    """Two hours computed; then late rows and a broken file, which make both stale."""

    def __init__(self, root):
        self.root = root
        lake = bronze.make_lake(root / "before", [ALPHA], hours=2, rows=30)
        bronze.run(lake, features=FEATURES)
        self.old = bronze.parquet(lake / "silver")
        self.bronze = root / "after/bronze"
        shutil.copytree(lake / "bronze", self.bronze)
        late = bronze.table([bronze.row(START + 3500 * SECOND + i, 480 + i) for i in range(3)])
        bronze.write(self.bronze, late, "late.parquet")
        (bronze.bronze_folder(root / "after", ALPHA, HOURS[0]) / "broken.parquet").write_bytes(b"PAR1")
        selection = Selection(self.bronze, root / "clean", features=FEATURES)
        assert run_single(selection).exit_code == 1, "the broken file"
        self.want = tree(root / "clean")
        self.new = bronze.parquet(root / "clean")
        assert all(self.old[k] != self.new[k] for k in self.old)

    def lake(self, name, fresh):
        silver = self.root / name
        if not fresh:
            shutil.copytree(self.root / "before/silver", silver)
        return Selection(self.bronze, silver, features=FEATURES)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("io"))


def once(selection):
    watcher = Watcher(selection, Pace(grace=0), now=lambda: FAR)
    try:
        return watcher.run(once=True)
    finally:
        watcher.close()


RUNNERS = {"single": run_single, "watcher": once}


def fail_each(world, disk, runner, fresh):
    """Fail the n-th write, n = 1, 2, ...; returns how many there are, and what went wrong."""
    problems, n = [], 0
    while True:
        n += 1
        assert n < 400
        selection = world.lake(f"{runner}-{fresh}-{disk.code}-{n}", fresh)
        reader = Reader(selection.silver)
        reader.start()
        disk.begin(n)
        try:
            summary, raised = RUNNERS[runner](selection), None
        except Exception as error:
            summary, raised = None, error
        failed = disk.end()
        after = bronze.parquet(selection.silver)
        where = f"write {n} ({failed})"
        if raised is not None:
            problems.append(f"{where}: the run ended with {type(raised).__name__}: {raised}")
        for name, data in after.items():
            if data not in (world.old.get(name) if not fresh else None, world.new[name]):
                problems.append(f"{where}: {name} is neither the old nor the new file")
            pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        if not fresh:
            problems += [f"{where}: {name} is gone" for name in world.old if name not in after]
        whole = not differences(tree(selection.silver), world.want)
        if summary is not None and failed and not whole and not summary.failed:
            problems.append(f"{where}: the run did not say that anything failed")
        if summary is not None and summary.exit_code != 1:
            problems.append(f"{where}: exit code {summary.exit_code}")
        left = bronze.left_over(selection.silver)
        problems += [f"{where}: left over {path}" for path in left]
        done = RUNNERS[runner](selection)
        problems += [f"{where}: then {o}: {o.error}" for o in done.failed]
        problems += [f"{where}: then {text}" for text in differences(tree(selection.silver), world.want)]
        problems += [f"{where}: a reader saw: {text}" for text in reader.finish()]
        shutil.rmtree(selection.silver)
        if not failed:
            return n - 1, problems


@pytest.mark.parametrize(
    ("runner", "code", "fresh"),
    [("single", errno.ENOSPC, False), ("watcher", errno.EIO, False), ("watcher", errno.ENOSPC, True)],
    ids=["single, ENOSPC", "watcher, EIO", "watcher, ENOSPC, first run"],
)
def test_the_nth_write_fails(world, monkeypatch, capsys, runner, code, fresh):
    count, problems = fail_each(world, Disk(monkeypatch, code), runner, fresh)
    with capsys.disabled():
        print(f" [{count} writes]", end="")
    assert count > 20
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:30])


def test_a_read_that_fails_once(world, monkeypatch):
    """EIO from a bronze file: it is quarantined for now, and read again by the next run once it can be."""
    selection, real, left = world.lake("reads", False), pq.ParquetFile.__init__, [1]

    def fails(self, source, *args, **kwargs):
        if "late.parquet" in str(source) and left:
            left.pop()
            raise OSError(errno.EIO, "Input/output error")
        return real(self, source, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "__init__", fails)
    assert run_single(selection).exit_code == 1
    assert not left
    for _ in range(2):
        run_single(selection)
    assert not differences(tree(selection.silver), world.want)
