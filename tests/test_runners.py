"""Runners: the same bytes whichever way the work is spread, lost workers, and what a summary counts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import bronze
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, BETA, HOURS

import tickstate
from tickstate.lake import files, write
from tickstate.runners import run as runs
from tickstate.runners.pool import SPAWN

REAL = Path(__file__).resolve().parents[2] / "shared/bronze"


def bronze_only(tmp_path, name="lake"):
    shutil.copytree(bronze.tiny() / "bronze", tmp_path / name / "bronze")
    return tmp_path / name


def expected():
    return bronze.tree(bronze.tiny() / "silver")


@pytest.mark.parametrize("workers", [1, 2])
def test_batch_gives_the_bytes_of_single(tmp_path, workers):
    lake = bronze_only(tmp_path)
    summary = bronze.run(lake, runner="batch", workers=workers)
    assert (summary.exit_code, len(summary.computed), summary.up_to_date) == (0, 8, 0)
    found = bronze.tree(lake / "silver")
    assert found == expected()
    assert sum(name.endswith(".parquet") for name in found) == 8
    assert sum(name.endswith(".json") for name in found) == 8
    assert bronze.run(lake, runner="batch", workers=workers).up_to_date == 8


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("lane", [ALPHA, BETA], ids="/".join)
def test_an_hour_alone_is_that_hour_of_the_whole(tmp_path, lane, index):
    lake = bronze_only(tmp_path)
    end = HOURS[index + 1] if index < 3 else None
    summary = bronze.run(lake, exchange=lane[0], symbol=lane[1], start=HOURS[index], end=end)
    assert bronze.computed(summary) == [("/".join(lane), HOURS[index])]
    found = bronze.tree(lake / "silver")
    assert len(found) == 2, "the file and its record"
    assert found.items() <= expected().items()


def test_hours_backwards_one_by_one(tmp_path):
    """Each from its lookback alone: as the run over all, with warm state."""
    lake = bronze_only(tmp_path)
    for index in (3, 1, 2, 0):
        bronze.run(lake, start=HOURS[index], end=HOURS[index + 1] if index < 3 else None)
    assert bronze.tree(lake / "silver") == expected()


@pytest.mark.parametrize("chunk", [1, 7, 60])
def test_chunks_do_not_show(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("tickstate.lake.segment.BATCH_ROWS", max(1, chunk // 2))
    monkeypatch.setattr("tickstate.runners.lane.CHUNK_ROWS", chunk)
    lake = bronze_only(tmp_path)
    bronze.run(lake)
    assert bronze.tree(lake / "silver") == expected()


@pytest.mark.parametrize("every", [60, 437, 3600])
def test_other_segment_files_change_no_output_byte(tmp_path, every):
    for lane in (ALPHA, BETA):
        bronze.write_lane(tmp_path / "bronze", bronze.walk(lane), every * bronze.SECOND, prefix="other-")
    assert bronze.run(tmp_path).exit_code == 0
    assert bronze.parquet(tmp_path / "silver") == bronze.parquet(bronze.tiny() / "silver")
    assert bronze.tree(tmp_path / "bronze").keys() != bronze.tree(bronze.tiny() / "bronze").keys()


def test_interleaved_and_shuffled_segments_change_no_output_byte(tmp_path):
    """Two files an hour, every other row in each, one of them backwards. Rows of the walk have distinct keys,
    but for equal ones."""
    for lane in (ALPHA, BETA):
        whole = bronze.walk(lane)
        hours = whole["hour"].to_numpy()
        for hour in dict.fromkeys(hours.tolist()):
            part = whole.filter(hours == hour)
            n = part.num_rows
            bronze.write(tmp_path / "bronze", part.take(list(range(0, n, 2))), "even.parquet")
            bronze.write(tmp_path / "bronze", part.take(list(range(1, n, 2))[::-1]), "odd.parquet")
    assert bronze.run(tmp_path).exit_code == 0
    assert bronze.parquet(tmp_path / "silver") == bronze.parquet(bronze.tiny() / "silver")


def test_an_executor_of_ones_own(tmp_path):
    lake = bronze_only(tmp_path)
    with ThreadPoolExecutor(3) as executor:
        summary = tickstate.run(lake, tier="silver", executor=executor)
        assert (summary.exit_code, len(summary.computed)) == (0, 8)
        assert bronze.tree(lake / "silver") == expected()
        assert tickstate.run(lake, tier="silver", executor=executor).up_to_date == 8, "and it is left open"


class Loses:
    """An executor that loses what it is given, as a pool does whose worker was killed: the first ``times`` times."""

    def __init__(self, times):
        self.left = times

    def submit(self, fn, *args):
        future: Future = Future()
        if self.left:
            self.left -= 1
            future.set_exception(BrokenProcessPool("a worker died"))
        else:
            future.set_result(fn(*args))
        return future


class Watches(runs.Silent):
    def __init__(self):
        self.noticed_texts, self.finished_texts, self.plans = [], [], []

    def planned(self, plan):
        self.plans.append(plan)

    def finished(self, outcome):
        self.finished_texts.append(str(outcome))

    def noticed(self, text):
        self.noticed_texts.append(text)


def test_spans_lost_with_their_worker_are_done_again(tmp_path):
    lake, watcher = bronze_only(tmp_path), Watches()
    summary = tickstate.run(lake, tier="silver", executor=Loses(1), observer=watcher)
    assert (summary.exit_code, len(summary.computed), summary.failed) == (0, 8, [])
    assert any("worker died" in text for text in watcher.noticed_texts)
    assert len(watcher.finished_texts) == len(set(watcher.finished_texts)) == 8
    assert bronze.tree(lake / "silver") == expected()


def test_a_script_that_no_worker_can_import_is_told_so_at_once(tmp_path):
    """Its main module calls ``run`` again in each worker. Said with what to do, and nothing is tried one by one."""
    lake, script = bronze_only(tmp_path), tmp_path / "script.py"
    call = f"tickstate.run({str(lake)!r}, runner='batch', workers=2, features={bronze.CHEAP!r})"
    script.write_text(f"import tickstate\n{call}\n")
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert found.returncode == 1
    assert (  # not always the last line: multiprocessing says last what workers left that were stopped as they started
        f"{script}: no worker process could start; expected a main module that can be imported, and memory for it"
        in found.stderr
    )
    assert found.stderr.count("bootstrapping phase") <= 2, "each worker has tried once"
    assert not [p for p in lake.rglob("*") if "silver" in p.parts and p.suffix == ".parquet"]
    script.write_text(f"import tickstate\nif __name__ == '__main__':\n    assert {call}.exit_code == 0\n")
    subprocess.run([sys.executable, script], check=True, timeout=300)


def _arm(begun, flag, step, keyword):
    """In a worker: die at a step, once (`flag` is the file that says so; None: each time) and where it says."""

    def hook(name):
        if name != step or not armed[0]:
            return
        if flag is not None:
            try:
                os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        os.kill(os.getpid(), signal.SIGKILL)

    if begun is not None:
        begun.value = 1
    armed = [keyword is None]
    if keyword is not None:
        plain = write.PartitionWriter._encode

        def encode(self, group):
            armed[0] = keyword in str(self._file.where)
            plain(self, group)

        write.PartitionWriter._encode = encode
    files.hook = hook


def dying_pool(monkeypatch, flag, step, keyword=None):
    """Make the batch runner's pools such that a worker is killed at a step."""

    def pool(workers, begun=None):
        arguments = (begun, flag, step, keyword)
        return ProcessPoolExecutor(workers, mp_context=SPAWN, initializer=_arm, initargs=arguments)

    monkeypatch.setattr("tickstate.runners.pool.local_pool", pool)


def _log(begun, path):
    """In a worker: write down when partitions begin and end, and make them last."""
    begun.value = 1

    def hook(name):
        if name in ("data:begin", "commit:durable"):
            with open(path, "a") as file:
                file.write(f"{time.time()} {os.getpid()} {1 if name == 'data:begin' else -1}\n")
        if name == "data:rows":
            time.sleep(0.5)

    files.hook = hook


def test_the_hours_of_one_lane_are_spread_over_workers(tmp_path, monkeypatch):
    """At some moment two of them are being made."""
    lake, log = bronze_only(tmp_path), tmp_path / "log"

    def pool(workers, begun):
        return ProcessPoolExecutor(workers, mp_context=SPAWN, initializer=_log, initargs=(begun, str(log)))

    monkeypatch.setattr("tickstate.runners.pool.local_pool", pool)
    summary = bronze.run(lake, runner="batch", workers=2, exchange="alpha", features=bronze.CHEAP)
    assert len(summary.computed) == 4
    steps = [line.split()[1:] for line in sorted(log.read_text().splitlines())]
    assert len(steps) == 8
    making, most = Counter(), 0
    for process, step in steps:
        making[process] += int(step)
        most = max(most, sum(count > 0 for count in making.values()))
    assert most == 2


def half_done(tmp_path):
    """The tiny lake when its second day had not begun, computed; then the second day comes in."""
    lake = bronze_only(tmp_path)
    later = [bronze.bronze_folder(lake, lane, HOURS[2]).parent for lane in (ALPHA, BETA)]
    for folder in later:
        shutil.move(folder, tmp_path / "later" / folder.relative_to(lake))
    assert len(bronze.run(lake).computed) == 4
    for folder in later:
        shutil.move(tmp_path / "later" / folder.relative_to(lake), folder)
    return lake, sorted(p for p in (lake / "silver").rglob("*.state") if p.is_file())


DAMAGE = {
    "none": lambda data: data,
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "noise": lambda data: bytes(range(256)) * 4,
    "a flipped byte of values": lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
    "a flipped byte of the header": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "a pickle": lambda data: b"\x80\x04cposix\nsystem\n(Vtouch pwned\ntR.",
    "more after its end": lambda data: data + b"\0" * 8,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_state_costs_time_and_nothing_else(tmp_path, what):
    lake, states = half_done(tmp_path)
    assert len(states) == 2
    for path in states:
        path.write_bytes(DAMAGE[what](path.read_bytes()))
    summary = bronze.run(lake)
    assert (summary.exit_code, len(summary.computed)) == (0, 4)
    assert summary.states_dropped == (0 if what == "none" else 2)
    assert bronze.tree(lake / "silver") == expected()


def test_the_state_of_another_lane_or_lake_is_not_believed(tmp_path):
    lake, (one, two) = half_done(tmp_path)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    summary = bronze.run(lake)
    assert (summary.exit_code, len(summary.computed)) == (0, 4)
    assert bronze.tree(lake / "silver") == expected()


def test_a_state_of_rows_that_changed_since_is_not_believed(tmp_path):
    """Late rows in the hour before, where the run is of the next hour only."""
    lake, _ = half_done(tmp_path)
    rows = [bronze.row(bronze.START + 2 * bronze.HOUR - 60 * bronze.SECOND + i, 480 + i) for i in range(5)]
    bronze.write(lake / "bronze", bronze.table(rows), "late.parquet")
    bronze.run(lake, start=HOURS[2])
    bronze.run(lake)
    fresh = tmp_path / "fresh"
    shutil.copytree(lake / "bronze", fresh / "bronze")
    bronze.run(fresh)
    assert bronze.tree(lake / "silver") == bronze.tree(fresh / "silver")


@pytest.mark.parametrize("step", ["data:rows", "commit:durable"])
def test_a_killed_worker_loses_nothing(tmp_path, monkeypatch, step):
    """Neither a partition nor a count of one: the last step is after the commit, so that nothing is left to do."""
    lake, watcher = bronze_only(tmp_path), Watches()
    dying_pool(monkeypatch, str(tmp_path / "died"), step)
    summary = bronze.run(lake, runner="batch", workers=2, observer=watcher)
    assert (tmp_path / "died").exists(), "one was killed"
    assert any("died" in text for text in watcher.noticed_texts)
    assert (summary.exit_code, summary.failed) == (0, [])
    assert bronze.tree(lake / "silver") == expected()
    assert len(summary.computed) + summary.up_to_date == summary.partitions == 8


def test_a_quarantined_file_is_said_after_a_killed_worker(tmp_path, monkeypatch):
    """Its partition was committed by the worker that died: the exit code must still be 1."""
    lake = bronze_only(tmp_path)
    bad = bronze.bronze_folder(lake, ALPHA, HOURS[0]) / "bad.parquet"
    bad.write_bytes(b"x")
    dying_pool(monkeypatch, str(tmp_path / "died"), "commit:durable", "exchange=alpha")
    summary = bronze.run(lake, runner="batch", workers=2, start=HOURS[0], end=HOURS[1])
    assert (tmp_path / "died").exists()
    assert [q.reason for q in summary.quarantined] == ["unreadable"]
    assert summary.exit_code == 1


def test_a_partition_that_always_kills_its_worker_is_named(tmp_path, monkeypatch):
    lake, watcher = bronze_only(tmp_path), Watches()
    dying_pool(monkeypatch, None, "data:rows", "exchange=beta/symbol=ETH-USDT/year=2024/month=3/day=2/hour=0/")
    summary = bronze.run(lake, runner="batch", workers=2, observer=watcher)
    assert summary.exit_code == 1
    assert [(str(o.lane), str(o).split()[2]) for o in summary.failed] == [("beta/ETH-USDT", HOURS[2])]
    assert "worker process died" in summary.failed[0].error
    made = bronze.parquet(lake / "silver")
    assert len(made) == 7, "all else is done"
    assert made.items() <= expected().items()
    monkeypatch.undo()
    assert bronze.run(lake).exit_code == 0
    assert bronze.tree(lake / "silver") == expected()
    assert bronze.left_over(lake) == []


def test_bronze_that_changes_while_it_is_read_is_planned_again(tmp_path, monkeypatch):
    lake, watcher, done = bronze_only(tmp_path), Watches(), []

    def change(step):
        if step == "compute:chunk" and not done:
            done.append(step)
            path = next(bronze.bronze_folder(lake, ALPHA, HOURS[0]).glob("*.parquet"))
            pq.write_table(pq.read_table(path, partitioning=None).slice(0, 5), path)

    monkeypatch.setattr(files, "hook", change)
    summary = bronze.run(lake, observer=watcher)
    monkeypatch.setattr(files, "hook", None)
    assert (summary.exit_code, len(summary.computed)) == (0, 8)
    assert any("bronze changed" in text for text in watcher.noticed_texts)
    assert bronze.run(lake).up_to_date == 8, "what is there was made from bronze as it is now"
    again = tmp_path / "again"
    shutil.copytree(lake / "bronze", again / "bronze")
    bronze.run(again)
    assert bronze.tree(again / "silver") == bronze.tree(lake / "silver")


def test_bronze_that_vanishes_while_it_is_read(tmp_path, monkeypatch):
    lake, done = bronze_only(tmp_path), []

    def change(step):
        if step == "data:begin" and not done:
            done.append(step)
            sorted(bronze.bronze_folder(lake, ALPHA, HOURS[0]).glob("*.parquet"))[-1].unlink()

    monkeypatch.setattr(files, "hook", change)
    summary = bronze.run(lake)
    assert (summary.exit_code, len(summary.computed), summary.quarantined) == (0, 8, [])
    assert bronze.run(lake).up_to_date == 8


def test_bronze_that_never_holds_still_fails_and_says_so(tmp_path, monkeypatch):
    lake, count = bronze_only(tmp_path), []
    path = next(bronze.bronze_folder(lake, ALPHA, HOURS[3]).glob("*.parquet"))
    whole = pq.read_table(path, partitioning=None)

    def change(step):
        if step == "compute:chunk":
            count.append(step)
            pq.write_table(whole.slice(0, 1 + len(count) % 7), path)

    monkeypatch.setattr(files, "hook", change)
    summary = bronze.run(lake, exchange="alpha")
    assert summary.exit_code == 1
    assert [str(o).split()[2] for o in summary.failed] == [HOURS[3]]
    assert "run again" in summary.failed[0].error
    monkeypatch.setattr(files, "hook", None)
    assert bronze.run(lake).exit_code == 0


def test_the_summary_counts(tmp_path):
    lake, watcher = bronze_only(tmp_path), Watches()
    summary = bronze.run(lake, observer=watcher)
    rows = bronze.silver(lake)
    counters = summary.counters
    assert (summary.partitions, len(summary.computed), summary.up_to_date) == (8, 8, 0)
    assert counters["rows"] == len(rows)
    in_bronze = sum(pq.read_metadata(p).num_rows for p in (lake / "bronze").rglob("*.parquet"))
    assert counters["rows"] + counters["duplicates"] == in_bronze
    assert counters["duplicates"] == in_bronze - len(rows) > 0
    for flag in ("ok", "empty", "one_sided", "bad_value", "unsorted", "crossed", "locked"):
        assert counters[f"flag_{flag}"] == sum(r["book_flag"] == flag for r in rows), flag
    assert counters["out_of_order"] == 0
    assert sorted(watcher.finished_texts) == sorted(map(str, summary.computed))
    assert len(watcher.plans) == 1
    found = summary.as_dict()
    assert (found["partitions"], found["computed"], found["counters"]) == (8, 8, counters)
    json.dumps(found)
    assert summary.seconds > 0


def test_counters_stand_in_the_records():
    lake = bronze.tiny()
    rows = bronze.silver(lake)
    records = [json.loads(bronze.commit(lake, lane, h).read_text()) for lane in (ALPHA, BETA) for h in HOURS]
    assert sum(r["counters"]["rows"] for r in records) == len(rows)
    assert sum(r["counters"]["flag_crossed"] for r in records) == sum(r["book_flag"] == "crossed" for r in rows)
    assert all(r["cutoff"] is None for r in records), "hours are taken as closed"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data beside the checkout ({REAL})")
def test_real_order_books(tmp_path):
    """Four partitions, every row; single and batch the same bytes; a second run does nothing."""
    chosen = {"bronze": REAL, "channel": "orderbook"}
    one = tickstate.run(silver=tmp_path / "one", runner="single", **chosen)
    assert (one.exit_code, len(one.computed), one.counters["rows"]) == (0, 4, 51_262)
    assert one.counters["flag_ok"] == 51_262
    two = tickstate.run(silver=tmp_path / "two", runner="batch", workers=2, **chosen)
    assert two.counters == one.counters
    assert bronze.tree(tmp_path / "one") == bronze.tree(tmp_path / "two") != {}
    files = sorted((tmp_path / "one/orderbook").rglob("*.parquet"))
    assert len(files) == 4
    assert sum(pq.read_metadata(p).num_rows for p in files) == 51_262
    assert tickstate.run(silver=tmp_path / "one", runner="batch", **chosen).up_to_date == 4
    hour = tickstate.run(
        silver=tmp_path / "hour", runner="single", **chosen,
        exchange="binance", symbol="BTC-USDT", start="2024-08-09T00", end="2024-08-09T01",
    )  # fmt: skip
    assert len(hour.computed) == 1
    assert bronze.tree(tmp_path / "hour").items() <= bronze.tree(tmp_path / "one").items()
