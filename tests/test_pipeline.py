"""A worker's threads: while one hour is written the next is computed and more is read, and no byte tells."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import bronze
import pyarrow.parquet as pq
import pytest
import tapes
from bronze import ALPHA, CHEAP, HOURS
from faults.delivery import FAR, FIRST, differences, tree
from lakes import HOUR, SECOND

from tickstate.lake import files, write
from tickstate.lake.behind import Behind
from tickstate.lake.segment import Files
from tickstate.runners import executor, lane
from tickstate.runners.ahead import read_ahead
from tickstate.runners.plan import make_plan
from tickstate.runners.run import run_single
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher


@pytest.fixture
def lake(tmp_path):
    """A lane of three hours, nothing computed."""
    return bronze.make_lake(tmp_path / "lake", [ALPHA], hours=3, rows=30)


@pytest.fixture
def hook(monkeypatch):
    """Set the hook of the steps of a commit."""
    return lambda function: monkeypatch.setattr(files, "hook", function)


def span_of(lake, features=CHEAP):
    """The one span of a lake's books."""
    (span,) = make_plan(Selection(lake / "bronze", lake / "silver", features=features)).spans(24)
    return span


def clean(lake, features=CHEAP):
    """What each hour is when it is computed by itself."""
    selection = Selection(lake / "bronze", lake.parent / "clean", features=features)
    for span in make_plan(selection).spans(1):
        executor.execute(span)
    return tree(lake.parent / "clean")


def test_a_failed_hour_takes_no_row_of_the_next(tmp_path, hook, monkeypatch):
    """Its disk is full at the first of several row groups; what is left of it goes while the next is computed."""
    monkeypatch.setattr(write, "ROW_GROUP_ROWS", 10)
    monkeypatch.setattr(lane, "CHUNK_ROWS", 10)
    lake, steps = bronze.make_lake(tmp_path / "lake", [ALPHA], hours=3, rows=60), []

    def full(name):
        steps.append(name)
        if name == "data:rows" and steps.count(name) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if name == "compute:chunk" and "data:rows" in steps:
            gc.collect()

    hook(full)
    outcomes = executor.execute(span_of(lake))
    assert [bool(o.error) for o in outcomes] == [True, False, False]
    assert [o.counters["rows"] for o in outcomes[1:]] == [60, 60]
    hook(lambda name: None)
    assert [o.error for o in executor.execute(span_of(lake))] == [""]
    assert not differences(tree(lake / "silver"), clean(lake))


def test_reading_that_ends_early_is_an_error(lake, monkeypatch):
    """Whatever ends it: an hour is never committed with a part of its rows."""
    monkeypatch.setattr(lane, "read_ahead", lambda *given: (item for item in ()))
    outcomes = executor.execute(span_of(lake))
    assert {"ended before" in o.error for o in outcomes} == {True}, [o.error for o in outcomes]
    assert not bronze.parquet(lake / "silver")


class Late:
    """A hook that keeps the first hour's rows from being written until `further` is set."""

    def __init__(self):
        self.further, self.came = threading.Event(), []

    def __call__(self, name):
        if name == "data:rows" and not self.came:
            self.came.append(self.further.wait(30))


def test_an_hour_is_computed_while_the_one_before_is_written(lake, hook):
    """Outcomes come in order all the same, in the thread that runs; and threads end with the run."""
    late, computed, told = Late(), [], []

    def both(name):
        late(name)
        if name == "compute:chunk":
            computed.append(name)
            if len(computed) == 2:
                late.further.set()

    hook(both)
    span = span_of(lake)
    executor.execute(span, lambda outcome: told.append((outcome.hour, outcome.error, threading.get_ident())))
    assert late.came == [True]
    assert told == [(hour, "", threading.get_ident()) for hour in span.hours]
    assert not [t for t in threading.enumerate() if t.name.startswith("tickstate")]
    assert not differences(tree(lake / "silver"), clean(lake))


def test_one_partition_is_unfinished_at_a_time(lake, hook):
    """The third hour is not begun before the first is committed, nor one committed before the one before it."""
    steps = []
    hook(steps.append)
    executor.execute(span_of(lake))
    assert steps.index("commit:durable") < [i for i, step in enumerate(steps) if step == "data:begin"][2]
    assert [s for s in steps if s in ("data:replaced", "commit:replaced")] == ["data:replaced", "commit:replaced"] * 3
    encoded, replaced = ([i for i, s in enumerate(steps) if s == name] for name in ("data:rows", "data:replaced"))
    assert len(encoded) == 3
    assert all(rows < there for rows, there in zip(encoded, replaced, strict=True))


@pytest.mark.parametrize("step", ["data:rows", "data:written", "data:synced", "commit:written"])
def test_an_hour_that_fails_while_the_next_is_computed(lake, hook, step):
    """Each says its own: the disk is full for the first, the others go on."""
    failed = []

    def full(name):
        if name == step and not failed:
            failed.append(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hook(full)
    first, *others = executor.execute(span_of(lake))
    hook(None)
    assert "No space left" in first.error
    assert [o.error for o in others] == ["", ""]
    assert bronze.left_over(lake) == []
    assert [o.error for o in executor.execute(span_of(lake))] == [""], "the first alone is left"
    assert not differences(tree(lake / "silver"), clean(lake))


def test_bronze_that_changes_while_it_is_written(lake, hook):
    """It is looked at when all is written: nothing is replaced, and the next hour is not harmed."""
    late = Late()
    hook(late)
    worker = executor.SilverWorker(span_of(lake), Files())

    def change():
        path = sorted(bronze.bronze_folder(lake, ALPHA, HOURS[0]).glob("*.parquet"))[0]
        pq.write_table(pq.read_table(path, partitioning=None).slice(0, 5), path)
        late.further.set()

    timer = threading.Timer(0.5, change)
    timer.start()
    with closing(worker):
        first, *others = worker.run()
    timer.join()
    assert first.changed
    assert not bronze.part(lake, ALPHA, HOURS[0]).exists()
    assert [o.error for o in others] == ["", ""]


def test_a_damaged_page_of_the_next_hour(lake, hook, monkeypatch):
    """It is found while the hour before is written, and left out of its own hour alone."""
    path = sorted(bronze.bronze_folder(lake, ALPHA, HOURS[1]).glob("*.parquet"))[0]
    pq.write_table(
        pq.ParquetFile(path).read(), path, write_page_checksum=True, compression="none", use_dictionary=False
    )
    found, chunk = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(0).column(10)
    assert chunk.path_in_schema.startswith("bids")
    found[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    path.write_bytes(found)
    late, set_bad = Late(), Files.set_bad

    def found_bad(*arguments):
        set_bad(*arguments)
        late.further.set()

    hook(late)
    monkeypatch.setattr(Files, "set_bad", found_bad)
    outcomes = executor.execute(span_of(lake))
    assert late.came == [True]
    assert [(o.error, [q.reason for q in o.quarantined]) for o in outcomes] == [
        ("", []), ("", ["corrupt"]), ("", ["corrupt"]),
    ], "the third hour looks back on the second"  # fmt: skip
    hook(None)
    clean(lake)
    assert bronze.parquet(lake / "silver") == bronze.parquet(lake.parent / "clean")


def test_a_chain_is_not_computed_ahead(lake, hook):
    """An hour that begins with what the record before it says waits for that record."""
    steps = []
    hook(steps.append)
    span = span_of(lake, ("ofi_ewma_60s",))
    executor.execute(span)
    wanted = [s for s in steps if s in ("data:begin", "commit:durable")]
    assert wanted == ["data:begin", "commit:durable"] * 3


def test_what_is_read_ahead_is_not_remembered(tmp_path, hook, monkeypatch):
    """A lane of trades is stopped when the next hour is read already: its trades are no repeats to who goes on."""
    rows = [
        tapes.trade((FIRST + 1) * HOUR + (i - 30) * 10 * SECOND, 1.0, trade_id=f"{i}", price=100 + i) for i in range(60)
    ]
    lake = tapes.write(tmp_path / "lake", {("trades", tapes.SYMBOL): rows})
    selection = Selection(lake / "bronze", lake / "silver", channels=("trades",))
    read, real, done = threading.Semaphore(0), lane.rows_of, []

    def reads(*arguments):
        read.release()
        return real(*arguments)

    def waits(name):
        if name == "compute:chunk" and not done:
            done.append([read.acquire(timeout=30) for _ in range(2)])

    monkeypatch.setattr(lane, "rows_of", reads)
    hook(waits)
    (span,) = make_plan(selection).spans(24)
    assert len(span.hours) == 2
    with closing(executor.SilverWorker(span, Files())) as worker:
        assert len(worker.run(stopped=lambda: bool(done))) == 1
        assert done == [[True, True]], "the second hour was read"
        worker.save()
    hook(None)
    (rest,) = make_plan(selection).spans(24)
    (last,) = executor.execute(rest)
    assert (last.error, last.dropped_state, last.counters["rows"], last.counters["duplicates"]) == ("", "", 30, 0)
    run_single(Selection(lake / "bronze", tmp_path / "clean", channels=("trades",)))
    assert not differences(tree(lake / "silver"), tree(tmp_path / "clean"))


@pytest.mark.parametrize("runner", ["single", "watcher"])
def test_partitions_that_share_a_lock(lake, monkeypatch, runner):
    """The lock of the hour that is written may be the one that the next hour needs."""
    monkeypatch.setattr("tickstate.runners.locks.SHARDS", 1)
    selection = Selection(lake / "bronze", lake / "silver", features=CHEAP)
    if runner == "single":
        assert len(run_single(selection).computed) == 3
    else:
        heard = []
        watcher = Watcher(selection, Pace(grace=0), now=lambda: FAR)
        watcher._observer.noticed = heard.append
        assert len(watcher.run(once=True).computed) == 3
        assert heard == []
    assert not differences(tree(lake / "silver"), clean(lake))


def test_two_that_want_what_the_other_holds(tmp_path, monkeypatch):
    """Two lanes whose hours share two locks crosswise: nobody holds one while it waits for the other."""
    lake = bronze.make_lake(tmp_path / "lake", [ALPHA, bronze.BETA], hours=4, rows=30)
    spans = make_plan(Selection(lake / "bronze", lake / "silver", features=CHEAP)).spans(24)
    shard = {
        f"{s.writes}/{s.lane}/{h}".encode(): (i + k) % 2 for i, s in enumerate(spans) for k, h in enumerate(s.hours)
    }
    monkeypatch.setattr("tickstate.runners.locks.xxhash.xxh3_64_intdigest", shard.__getitem__)
    meet = threading.Barrier(2, timeout=30)

    def hook(name):
        if name == "compute:chunk":
            time.sleep(0.05)  # both hold one lock for a while

    monkeypatch.setattr(files, "hook", hook)

    def run(span):
        meet.wait()
        return executor.execute(span)

    pool = ThreadPoolExecutor(2)
    both = [pool.submit(run, span) for span in spans]
    assert [o.error for future in both for o in future.result(60)] == [""] * 8
    pool.shutdown()


# ---- the parts


def test_behind_holds_one_act_beside_the_one_that_runs():
    """Who gives a second one waits until the first is done; errors stay with their own."""
    behind, go, done = Behind("test"), threading.Event(), []

    def first():
        assert go.wait(30)
        done.append("first")
        raise ValueError("of the first")

    one = behind.submit(first)
    threading.Timer(0.1, go.set).start()
    two = behind.submit(lambda: done.append("second"))
    behind.catch_up()
    assert done[0] == "first"
    behind.close()
    assert done == ["first", "second"]
    assert (str(one.exception()), two.exception()) == ("of the first", None)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the system knows no batch work")
def test_the_threads_do_not_push_others_from_the_core():
    """But for the thread of whoever calls: its policy is not ours to change."""
    before, behind = os.sched_getscheduler(0), Behind("test")
    expected = os.SCHED_BATCH if before == os.SCHED_OTHER else before
    assert behind.submit(lambda: os.sched_getscheduler(0)).result() == expected
    behind.close()
    assert list(read_ahead(os.sched_getscheduler(0) for _ in range(2))) == [expected] * 2
    assert os.sched_getscheduler(0) == before


def test_reading_goes_on_behind_a_mark():
    """One item is prepared beside the one in use, marks come for nothing, and an error waits for its turn."""
    prepared, seen = [], []

    def items():
        for item in (1, "mark", 2, 3):
            prepared.append(item)
            yield item
        raise ValueError("behind the third")

    found = read_ahead(items(), lambda item: item == "mark")
    assert next(found) == 1
    until = time.monotonic() + 30
    while 2 not in prepared and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.05)
    assert prepared == [1, "mark", 2], "and not the third"
    with pytest.raises(ValueError, match="behind the third"):
        seen.extend(found)
    assert seen == ["mark", 2, 3]
