"""What a new segment costs the watcher, early and late in an hour, and how soon its rows can be read."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from busy import write_busy_hour

from tickstate.runners.lane import LaneRun
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher

ROWS = 100_000
ROUNDS = 3
SLOT = 300_000_000  # us


class Delivery:
    """Five-minute segments of a busy hour, handed over by rename, and a watcher whose clock they set."""

    def __init__(self, staging: Path, folder: Path, poll: float = 5.0) -> None:
        self.bronze, self.silver, self._staging, self._now = folder / "bronze", folder / "silver", staging, 0
        self.bronze.mkdir(parents=True)
        self.slots = sorted({p.stem for p in staging.rglob("*.parquet")})
        selection = Selection(self.bronze, self.silver, channels=("orderbook",))
        self.watcher = Watcher(selection, Pace(poll=poll, grace=3600.0), now=lambda: self._now)

    def give(self) -> None:
        """Rename the next five minutes of every channel into place."""
        slot = self.slots.pop(0)
        for source in sorted(self._staging.rglob(f"{slot}.parquet")):
            target = self.bronze / source.relative_to(self._staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            hidden = target.with_name(f".{target.name}")
            hidden.write_bytes(source.read_bytes())
            os.replace(hidden, target)
        self._now = int(slot)


@pytest.fixture(scope="module")
def staging(tmp_path_factory):
    """The hour as twelve segments a channel, each called by the time (us) it ends."""
    folder = tmp_path_factory.mktemp("staging")
    for source in sorted(write_busy_hour(folder / "whole", ROWS).rglob("*.parquet")):
        table = pq.ParquetFile(source).read()
        ends = (table.column("capture_ts").cast(pa.int64()).to_numpy() // SLOT + 1) * SLOT
        for end in np.unique(ends):
            target = folder / "slots" / source.relative_to(folder / "whole").parent / f"{end}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            part = table.filter(pa.array(ends == end))
            held = [pq.ParquetFile(target).read()] if target.exists() else []
            pq.write_table(pa.concat_tables([*held, part]), target, compression="zstd")
    return folder / "slots"


@pytest.fixture
def computing(monkeypatch):
    """CPU seconds of the thread that computes rows; decoding and rewriting the open hour's file are other threads'."""
    spent = [0.0]
    plain = LaneRun.tables

    def timed(self, *args):
        tables = plain(self, *args)
        while True:
            began = time.thread_time()
            found = next(tables, None)
            spent[0] += time.thread_time() - began
            if found is None:
                return
            yield found

    monkeypatch.setattr(LaneRun, "tables", timed)
    return spent


def test_segment_cost(benchmark, note, staging, computing, tmp_path):
    """A segment of 8,300 rows in the first quarter of its hour and in the last."""
    early, late, cycles = [], [], []

    def hour(folder):
        delivery = Delivery(staging, folder)
        costs = []
        while delivery.slots:
            delivery.give()
            computing[0] = 0.0
            began = time.perf_counter()
            delivery.watcher.cycle()
            cycles.append(time.perf_counter() - began)
            costs.append(computing[0])
        delivery.watcher.close()
        assert not delivery.watcher.summary.failed
        early.append(min(costs[1:4]))
        late.append(min(costs[-3:]))

    folders = iter(tmp_path / str(i) for i in range(100))
    benchmark.group = "watcher"
    benchmark.pedantic(hour, setup=lambda: ((next(folders),), {}), rounds=ROUNDS, warmup_rounds=1)
    note("computing a late segment, times an early one", min(late) / min(early), at_most=1.5)
    note("seconds a cycle at the end of the hour, rewriting included", min(cycles[-1:] + cycles[-13:-12]))


def test_visible(benchmark, note, staging, tmp_path):
    """From the rename of the last segment to its rows in silver, ``poll`` 0.2 s, after 92,000 rows in the hour."""
    delays = []

    def hour(folder):
        delivery = Delivery(staging, folder, poll=0.2)
        while len(delivery.slots) > 1:
            delivery.give()
        delivery.watcher.cycle()
        path = next(delivery.silver.rglob("part-0.parquet"))
        before = pq.read_metadata(path).num_rows
        thread = threading.Thread(target=delivery.watcher.run)
        thread.start()
        delivery.give()
        began = time.perf_counter()
        while pq.read_metadata(path).num_rows <= before:
            time.sleep(0.01)
        delays.append(time.perf_counter() - began)
        delivery.watcher.stop()
        thread.join()

    folders = iter(tmp_path / str(i) for i in range(100))
    benchmark.group = "watcher"
    benchmark.pedantic(hour, setup=lambda: ((next(folders),), {}), rounds=ROUNDS, warmup_rounds=1)
    note("seconds from rename to silver, longest", max(delays), at_most=2.0)
