"""Two runners at once on one lake: a lock spares double work, and where it is lost the result is right all the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import bronze
import pytest
from bronze import ALPHA
from faults.delivery import FAR, World, assert_clean, cycle, deliver, partitions

from tickstate.lake import files
from tickstate.runners.locks import partition_lock
from tickstate.runners.plan import make_plan
from tickstate.runners.pool import run_spans
from tickstate.runners.run import Silent, run_single
from tickstate.runners.selection import Selection

FEATURES = ("mid_price", "tfi_60s")
COMMAND = [sys.executable, "-c", "from tickstate.runners.cli import main; main()", "run"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("locks"), hours=3, seconds=600, features=FEATURES)


@pytest.fixture
def hook():
    """Set the hook of `lake.files` for one test."""

    def setter(function):
        files.hook = function

    yield setter
    files.hook = None


def arguments(world, lake, runner, *more):
    chosen = [x for name in FEATURES for x in ("--feature", name)]
    return [*COMMAND, "--runner", runner, "--bronze", lake / "bronze", "--silver", lake / "silver", *chosen, *more]


@pytest.mark.parametrize("pair", [("batch", "batch"), ("watcher", "batch"), ("watcher", "watcher")], ids="+".join)
def test_two_processes_at_once(world, pair):
    lake = world.place("-".join(pair))
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
    options = {"batch": ("--workers", "2"), "watcher": ("--once",)}
    commands = [arguments(world, lake, runner, *options[runner]) for runner in pair]
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    for process in running:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, out + err
    assert run_single(world.selection(lake / "bronze", lake / "silver")).exit_code == 0, "what a skipped lane left"
    assert_clean(world, lake)


def locks(lake):
    return sorted((lake / "silver/_locks").glob("*.lock"))


def test_a_held_lane_is_skipped_with_a_notice(world):
    """The others are done; once it is free, it is done as well."""
    lake, heard = world.place("held"), []
    for piece in world.pieces:
        deliver(piece, lake / "bronze")

    class Hears(Silent):
        def noticed(self, text):
            heard.append(text)

    watcher = world.watcher(lake, [FAR], observer=Hears())
    spans = make_plan(watcher.selection).spans(24)
    book = next(span for span in spans if span.channel == "orderbook")
    with ExitStack() as stack:
        for hour in book.hours:
            stack.enter_context(partition_lock(book.root, f"{book.writes}/{book.lane}/{hour}"))
        cycle(watcher)
        made = {p.relative_to(lake / "silver").parts[0] for p in partitions(lake / "silver")}
        assert made == {span.channel for span in spans} - {"orderbook"}
        assert heard
        assert all("orderbook demo/A-B" in text for text in heard)
    cycle(watcher)
    watcher.close()
    assert_clean(world, lake)


def test_batch_waits_and_does_not_do_it_again(world, hook):
    """What the other runner made meanwhile is left alone."""
    lake = world.place("waits")
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
    selection = world.selection(lake / "bronze", lake / "silver")
    began, both, done = threading.Event(), threading.Barrier(2, timeout=60), []

    def wait(name):
        if name == "data:begin" and not began.is_set():
            began.set()
            both.wait()

    hook(wait)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_single, selection)
        assert began.wait(60)
        second = pool.submit(run_single, selection)  # plans while nothing is there yet
        threading.Timer(1.0, both.wait).start()
        done = [first.result(100), second.result(100)]
    assert [d.exit_code for d in done] == [0, 0]
    assert sum(len(d.computed) for d in done) == len(partitions(world.clean)), "no partition twice"
    assert_clean(world, lake)


def test_the_lock_is_lost_in_the_middle(world, hook):
    """Its file is deleted at every commit, and a second run goes beside the first."""
    lake = world.place("lost")
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
    selection, begun = world.selection(lake / "bronze", lake / "silver"), threading.Event()

    def lose(name):
        if name == "data:written":
            for path in locks(lake):
                path.unlink(missing_ok=True)
            begun.set()

    hook(lose)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_single, selection)
        assert begun.wait(60)
        second = pool.submit(run_single, selection)
        found = [first.result(100), second.result(100)]
    hook(None)
    assert len(found) == 2, (
        "one of them may fail where both write one file, and says so; the lake is whole after the next"
    )
    assert run_single(selection).exit_code == 0
    assert_clean(world, lake)


def test_a_lock_left_by_a_killed_process_is_free(world):
    lake = world.place("left")
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
    run_single(world.selection(lake / "bronze", lake / "silver"))
    shutil.rmtree(lake / "silver/orderbook")
    for path in locks(lake):
        path.write_text("999999\n")
    watcher = world.watcher(lake, [FAR])
    cycle(watcher)
    watcher.close()
    assert_clean(world, lake)


def test_hours_of_one_lane_are_computed_in_parallel(tmp_path, hook):
    """DESIGN.md: tasks are spans of hours of a lane, so one symbol's year runs in parallel too."""
    lake = bronze.make_lake(tmp_path, [ALPHA], hours=4, rows=200)
    spans = make_plan(Selection(lake / "bronze", lake / "silver", features=("mid_price",))).spans(1)
    active, most, guard = [0], [0], threading.Lock()

    def watch(name):
        with guard:
            active[0] += (name == "data:begin") - (name == "commit:durable")
            most[0] = max(most[0], active[0])
        if name == "data:begin":
            threading.Event().wait(0.3)

    hook(watch)
    with ThreadPoolExecutor(4) as executor:
        assert run_spans(spans, executor, lambda outcome: None) == []
    assert len(spans) == 4
    assert most[0] >= 2


def test_a_watcher_whose_plan_is_old_shrinks_nothing(world):
    """Between its plan and its lock a batch run completes the hour: readers must not see rows go."""
    lake, rows = world.place("shrink"), {}
    last = [p for p in world.pieces if "trades" in str(p.relative)][-1]
    for piece in world.pieces:
        if piece is not last:
            deliver(piece, lake / "bronze")
    selection = world.selection(lake / "bronze", lake / "silver")

    class Beside(Silent):
        def planned(self, plan):
            if not rows:
                run_single(selection)
                rows.update({p: bronze.pq.read_metadata(p).num_rows for p in partitions(lake / "silver")})

    watcher = world.watcher(lake, [last.time], grace=900.0, observer=Beside())
    watcher.cycle()
    watcher.close()
    assert len(rows) == 6
    after = {p: bronze.pq.read_metadata(p).num_rows for p in rows}
    assert {p: (n, after[p]) for p, n in rows.items() if after[p] < n} == {}
