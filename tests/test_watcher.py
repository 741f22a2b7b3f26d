"""The watcher: open hours and cutoffs, what a segment costs, quarantine, signals, and any order of delivery."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import bronze
import lakes
import pyarrow.parquet as pq
import pytest
import tapes
from faults.delivery import FAR, World, assert_clean, cycle, deliver, differences, partitions, tree
from lakes import HOUR, MIDNIGHT, SECOND

from tickstate.features.engine import Engine
from tickstate.lake import stream
from tickstate.runners.run import Silent, run_single
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher

FEATURES = ("mid_price", "tfi_60s", "ofi_sum_60s")
T = MIDNIGHT
"""The beginning of the hour that the small lanes here are in."""


class Live:
    """A bronze that grows, row by row, and its watcher."""

    def __init__(self, root, grace=120.0, features=("mid_price",), channels=(), observer=None, **pace):
        self.lake, self.clock, self._count = root, [0], 0
        (root / "bronze/orderbook").mkdir(parents=True)
        selection = Selection(root / "bronze", root / "silver", channels=channels, features=features)
        self.watcher = Watcher(selection, Pace(grace=grace, **pace), observer, now=lambda: self.clock[0])

    def add(self, channel, seconds, name=None):
        """A segment with a row at each of these seconds of the hour."""
        make = {"orderbook": tapes.touch, "trades": tapes.trade, "ticker": tapes.quote}[channel]
        rows = [
            make(T + round(s * SECOND), nonce=i) if channel == "orderbook" else make(T + round(s * SECOND))
            for i, s in enumerate(seconds)
        ]
        self._count += 1
        return lakes.write_segment(
            self.lake / "bronze", channel, tapes.EXCHANGE, tapes.SYMBOL, rows, name or f"s{self._count}.parquet"
        )

    def look(self, now=None):
        """One cycle at a time (seconds of the hour); how far the book is then, None where there is nothing."""
        if now is not None:
            self.clock[0] = T + round(now * SECOND)
        cycle(self.watcher)
        return self.cutoff()

    def cutoff(self, channel="orderbook", t=T):
        """Seconds of the hour; "closed"; None."""
        try:
            found = tapes.record(self.lake / "silver", t, channel)["cutoff"]
        except FileNotFoundError:
            return None
        return "closed" if found is None else (found - T) / SECOND

    def rows(self, channel="orderbook", t=T):
        return [(r["capture_ts"] - T) / SECOND for r in tapes.read(self.lake / "silver", channel, t=t)]


@pytest.fixture
def live(tmp_path):
    made = []

    def make(name="live", **options):
        made.append(Live(tmp_path / name, **options))
        return made[-1]

    yield make
    for one in made:
        one.watcher.close()


# ---- cutoffs (DESIGN.md, "Open hours")


def test_complete_up_to_the_last_row_strictly(live):
    """Rows of the last time may have equals that are still to come."""
    lane = live(grace=1000)
    lane.add("orderbook", range(0, 601, 10))
    lane.add("trades", range(0, 900, 10))
    assert lane.look(now=700) == 600
    assert lane.rows() == list(range(0, 600, 10))
    lane.add("orderbook", (600, 600, 650))
    assert lane.look() == 650
    assert lane.rows() == [*range(0, 600, 10), 600, 600, 600], "their nonces tell them apart"


def test_or_up_to_now_less_grace(live):
    lane = live(grace=120)
    lane.add("orderbook", range(0, 601, 10))
    assert lane.look(now=700) == 580, "no trades: they are waited for, 120 s"
    assert lane.rows() == list(range(0, 580, 10))
    assert lane.look(now=719) == 599
    assert lane.look(now=900) == 780
    assert lane.rows()[-1] == 600


def test_trades_hold_the_book_back(live):
    lane = live(grace=1000)
    lane.add("orderbook", range(0, 601, 10))
    lane.add("trades", range(0, 301, 10))
    assert lane.look(now=700) == 300
    assert lane.rows()[-1] == 290
    lane.add("trades", range(310, 401, 10))
    assert lane.look() == 400
    assert lane.look(now=1500) == 500, "now - grace by then"


def test_the_book_does_not_hold_trades_back(live):
    lane = live(grace=1000, features=("mid_price", "volume_60s"))
    lane.add("orderbook", range(0, 101, 10))
    lane.add("trades", range(0, 601, 10))
    assert lane.look(now=700) == 100
    assert lane.cutoff("trades") == 600


def test_never_lowered(live):
    """The clock goes back, and then the newest segment goes away."""
    lane = live(grace=120)
    lane.add("orderbook", range(0, 301, 10))
    assert lane.look(now=720) == 600
    before = partitions(lane.lake / "silver")[0].read_bytes()
    assert lane.look(now=200) == 600
    lane.add("orderbook", (400,), "late.parquet")
    assert lane.look(now=210) == 600
    assert lane.rows()[-2:] == [300, 400]
    (path,) = (lane.lake / "bronze").rglob("late.parquet")
    path.unlink()
    assert lane.look(now=220) == 600
    assert lane.rows()[-1] == 300
    assert partitions(lane.lake / "silver")[0].read_bytes() == before


def test_nothing_is_complete_yet(live):
    lane = live(grace=1000)
    lane.add("orderbook", (10, 20))
    assert lane.look(now=30) is None, "trades are not known up to any time of the hour"
    assert not partitions(lane.lake / "silver")


def test_an_hour_closes_by_rows_of_the_next(live):
    lane = live(grace=5000)
    for channel in ("orderbook", "trades"):
        lane.add(channel, range(0, 3600, 60))
    assert lane.look(now=3601) == 3540
    lane.add("orderbook", (3600, 3610))
    assert lane.look() == 3540, "trades are not there yet"
    lane.add("trades", (3600,))
    assert lane.look() == "closed"
    assert len(lane.rows()) == 60
    assert lane.cutoff(t=T + HOUR) is None, "a last row at the hour's first instant: nothing before it"


def test_an_hour_closes_by_the_clock(live):
    lane = live(grace=100)
    lane.add("orderbook", range(0, 1000, 60))
    assert lane.look(now=3699) == 3599
    assert lane.look(now=3700) == "closed"
    before = tree(lane.lake / "silver")
    assert lane.watcher.cycle() == []
    assert tree(lane.lake / "silver") == before


def test_closed_stays_closed(live):
    """Late rows change it, a clock that goes back does not open it."""
    lane = live(grace=100)
    lane.add("orderbook", range(0, 1000, 60))
    lane.look(now=5000)
    lane.add("orderbook", (2000,))
    assert lane.look(now=300) == "closed"
    assert lane.rows()[-1] == 2000


def test_an_open_hour_that_a_batch_run_closed_stays_closed(live):
    lane = live(grace=100)
    lane.add("orderbook", range(0, 1000, 60))
    assert lane.look(now=600) == 500
    run_single(lane.watcher.selection)
    assert lane.look(now=610) == "closed"
    assert len(lane.rows()) == 17
    lane.add("orderbook", (1100,))
    lane.look(now=620)
    assert len(lane.rows()) == 18


def test_other_channels_go_on_their_own(live):
    lane = live(grace=1000, features=("mid_price",))
    lane.add("ticker", range(0, 101, 10))
    assert lane.look(now=200) is None
    assert lane.cutoff("ticker") == 100
    assert lane.rows("ticker") == list(range(0, 100, 10))


# ---- any order of delivery


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("watch"), hours=3, seconds=400, features=FEATURES)


def prefix_of(before, after):
    return after.num_rows >= before.num_rows and after.slice(0, before.num_rows).equals(before)


def test_in_order_every_look_is_a_prefix_of_the_final_hour(world):
    """Delivered in order, some at a time: what readers saw is a prefix, byte for byte the clean run in the end."""
    lake, clock, rng, seen = world.place("prefix"), [0], random.Random(3), {}
    watcher, opened = world.watcher(lake, clock, grace=1000.0), 0
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
        clock[0] = max(clock[0], piece.time + 1)
        if rng.random() < 0.5:
            continue
        cycle(watcher)
        for path in partitions(lake / "silver"):
            now = pq.ParquetFile(path).read()
            assert path not in seen or prefix_of(seen[path], now), path
            opened += path in seen and now.num_rows > seen[path].num_rows
            seen[path] = now
    assert opened > 30, "hours grew while they were open"
    clock[0] = FAR
    cycle(watcher)
    watcher.close()
    for path, before in seen.items():
        assert prefix_of(before, pq.ParquetFile(path).read()), path
    assert_clean(world, lake)


def scramble(world, name, seed, restart=0.15, look=0.25):
    """Pieces in random order, some twice, some truncated first, with restarts and a batch run beside."""
    lake, clock, rng = world.place(name), [0], random.Random(seed)
    watcher = world.watcher(lake, clock)
    order = [*world.pieces]
    rng.shuffle(order)
    order += rng.sample(order, len(order) // 10)
    torn = set()
    for piece in order:
        target = lake / "bronze" / piece.relative
        if rng.random() < 0.1:
            target.parent.mkdir(parents=True, exist_ok=True)
            data = piece.staged.read_bytes()
            target.write_bytes(data[: rng.randrange(len(data))])
            torn.add(piece)
        else:
            deliver(piece, lake / "bronze")
            torn.discard(piece)
        clock[0] = max(clock[0], piece.time + 1)
        if rng.random() < look:
            cycle(watcher)
        if rng.random() < restart:
            watcher.close()
            if rng.random() < 0.3:
                run_single(world.selection(lake / "bronze", lake / "silver"))
            watcher = world.watcher(lake, clock)
    for piece in torn:
        deliver(piece, lake / "bronze")
    clock[0] = FAR
    for _ in range(4):
        if not cycle(watcher):
            break
    watcher.close()
    assert_clean(world, lake)
    shutil.rmtree(lake)


@pytest.mark.parametrize("seed", range(3))
def test_random_order_twice_truncated_with_restarts(world, seed):
    scramble(world, f"random-{seed}", seed)


ORDERS = int(os.environ.get("TICKSTATE_ORDERS", "3"))
"""Of the real bronze; the issue's figure is 20."""
REAL = ("structure", "flow", "impact", "ewma", "tape", "quote", "calendar", "vpin")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not tapes.has_bronze():
        pytest.skip("no ../shared/bronze beside the checkout")
    config = Path(tapes.SHARED) / "expected/features.toml"
    return World(
        tmp_path_factory.mktemp("real"), seconds=60, features=REAL, bronze=Path(tapes.SHARED) / "bronze",
        config=config if config.exists() else None, assign=(),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ORDERS))
def test_the_real_bronze_in_random_order(real, seed):
    """Segments of a minute, all channels and lanes, restarts in between: the bytes of the batch run."""
    print(f"{len(real.pieces)} segments, seed {seed}")
    lake, clock, rng = real.place(f"real-{seed}"), [0], random.Random(seed)
    order = [*real.pieces]
    rng.shuffle(order)
    watcher = real.watcher(lake, clock)
    looks = set(rng.sample(range(len(order)), 6))
    for i, piece in enumerate(order):
        deliver(piece, lake / "bronze")
        clock[0] = max(clock[0], piece.time + 1)
        if i in looks:
            cycle(watcher)
            if rng.random() < 0.6:
                watcher.close()
                watcher = real.watcher(lake, clock)
    clock[0] = FAR
    cycle(watcher)
    watcher.close()
    assert_clean(real, lake)
    shutil.rmtree(lake)


# ---- segments that are not whole, or bad


def test_temporary_names_are_not_looked_at(live):
    lane = live(grace=100)
    path = lane.add("orderbook", range(0, 100, 10))
    for name in ("x.parquet.tmp", ".hidden.parquet", "_work.parquet", "x.part", "y.parquet.inprogress"):
        path.with_name(name).write_bytes(b"half")
    lane.look(now=5000)
    assert not lane.watcher.summary.quarantined
    assert lane.cutoff() == "closed"


def test_a_truncated_segment_is_quarantined_and_then_replaced(live):
    """The others go on meanwhile, and other lanes do not care."""
    lane = live(grace=100)
    lane.add("orderbook", range(0, 100, 10))
    path = lane.add("orderbook", range(100, 200, 10))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    lane.add("orderbook", range(200, 300, 10))
    lane.add("ticker", range(0, 100, 10))
    lane.look(now=5000)
    assert [Path(q.path).name for q in lane.watcher.summary.quarantined] == [path.name]
    assert lane.watcher.summary.exit_code == 1
    assert lane.rows() == [*range(0, 100, 10), *range(200, 300, 10)]
    assert lane.cutoff("ticker") == "closed"
    assert lane.watcher.cycle() == [], "it stays broken: nothing is done twice"
    assert len(lane.watcher.summary.quarantined) == 1, "but it is not forgotten"
    path.write_bytes(whole)
    lane.look()
    assert lane.rows() == list(range(0, 300, 10))
    assert not lane.watcher.summary.quarantined
    assert not list((lane.lake / "silver/_quarantine").rglob("*.json"))


def test_a_file_whose_footer_is_good_but_not_its_rows(live, tmp_path):
    """Rows of another hour: quarantined. Watcher and single agree on what such a lake is made of, so that neither
    finds the other's work stale."""
    lane = live(grace=100)
    path = lane.add("orderbook", range(0, 100, 10))
    other = lane.add("orderbook", range(3600, 3700, 10))
    shutil.move(other, path.with_name("wrong.parquet"))
    done = [len(lane.watcher.cycle()) for lane.clock[0] in [FAR] * 3]
    assert [q.reason for q in lane.watcher.summary.quarantined] == ["path_mismatch"]
    found = tree(lane.lake / "silver")
    assert run_single(lane.watcher.selection).computed == []
    clean = Selection(lane.lake / "bronze", tmp_path / "clean", features=("mid_price",))
    run_single(clean)
    assert not differences(found, tree(tmp_path / "clean"))
    assert done == [1, 0, 0]


def test_a_damaged_page_too(live):
    """Found in the middle of reading only."""
    lane = live(grace=100)
    lane.add("orderbook", range(0, 100, 10))
    path = lane.add("orderbook", range(100, 200, 10))
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows, path, write_page_checksum=True, compression="none", use_dictionary=False)
    column = next(
        c for c in map(pq.read_metadata(path).row_group(0).column, range(20)) if c.path_in_schema.startswith("asks")
    )
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 9] ^= 1
    path.write_bytes(data)
    done = [len(lane.watcher.cycle()) for lane.clock[0] in [FAR] * 3]
    assert [q.reason for q in lane.watcher.summary.quarantined] == ["corrupt"]
    assert lane.rows() == list(range(0, 100, 10))
    assert run_single(lane.watcher.selection).computed == []
    assert done == [1, 0, 0]


def test_a_segment_that_vanishes_while_it_is_listed(live, monkeypatch):
    """Somebody moves files while the watcher looks: it looks again, and does not end."""
    lane = live(grace=100)
    lane.add("orderbook", range(0, 100, 10))
    path = lane.add("orderbook", range(100, 200, 10))
    real, gone = os.scandir, []

    def scandir(folder):
        if "bronze" not in str(folder):
            return real(folder)  # pathlib asks too
        entries = list(real(folder))
        if any(e.name == path.name for e in entries) and not gone:
            gone.append(path.read_bytes())
            path.unlink()
        return entries

    monkeypatch.setattr("tickstate.lake.store.os.scandir", scandir)
    lane.clock[0] = FAR
    lane.watcher.cycle()
    lane.watcher.cycle()
    assert gone
    assert lane.rows() == list(range(0, 100, 10))


def test_a_watcher_that_starts_before_the_first_segment(tmp_path):
    """The feed comes up later than the watcher, as after any reboot."""
    (tmp_path / "bronze").mkdir()
    watcher = Watcher(Selection(tmp_path / "bronze", tmp_path / "silver", features=("mid_price",)), now=lambda: FAR)
    assert watcher.cycle() == []
    lakes.write_segment(tmp_path / "bronze", "orderbook", "demo", "A-B", [tapes.touch(T)])
    assert len(watcher.cycle()) == 1
    watcher.close()


def test_a_disk_that_fails_does_not_end_it(live, monkeypatch):
    """No lock file can be made: a failed partition, tried again in the next cycle."""
    lane = live(grace=100)
    lane.add("orderbook", range(0, 100, 10))
    lane.clock[0] = FAR
    with monkeypatch.context() as patch:

        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        patch.setattr("tickstate.runners.locks.FileLock.acquire", full)
        lane.watcher.cycle()
        assert lane.watcher.summary.failed
    assert len(lane.watcher.cycle()) == 1


# ---- what it costs


def test_refresh_bounds_rewrites(live):
    lane = live(grace=100, refresh=60.0)
    lane.add("orderbook", range(0, 3600, 10))
    assert lane.look(now=1100) == 1000
    for now in (1101, 1130, 1159):
        assert lane.look(now) == 1000
    assert lane.look(now=1160) == 1060
    assert lane.look(now=1161) == 1060
    assert lane.look(now=3700) == "closed", "a complete hour is not kept waiting"


def test_without_refresh_every_cycle(live):
    lane = live(grace=100)
    lane.add("orderbook", range(0, 3600, 10))
    assert [lane.look(now) for now in (1100, 1111, 1122)] == [1000, 1011, 1022]
    assert lane.watcher.cycle() == [], "but only where there is something new"


def test_late_data_recomputes_what_it_reaches(tmp_path):
    """A late row in the first of four hours: that hour, and the next, whose lookback reaches it; not the third."""
    lake = bronze.make_lake(tmp_path, [bronze.ALPHA], hours=4, rows=60)
    selection = Selection(lake / "bronze", lake / "silver", features=("ofi_sum_60s",))
    watcher = Watcher(selection, now=lambda: FAR)
    assert len(watcher.cycle()) == 4
    before = bronze.tree(lake / "silver")
    bronze.write(lake / "bronze", bronze.table([bronze.row(bronze.START + 3500 * SECOND, 480)]), "late.parquet")
    done = watcher.cycle()
    assert [str(o).split()[-1] for o in done] == list(bronze.HOURS[:2])
    after = bronze.tree(lake / "silver")
    changed = sorted(k for k in before if k.endswith(".parquet") and before[k] != after[k])
    assert all("hour=22" in k or "hour=23" in k for k in changed)
    assert watcher.cycle() == []
    watcher.close()
    shutil.rmtree(lake / "silver")
    run_single(selection)
    assert not differences(
        tree(lake / "silver"), {k: v for k, v in after.items() if (k[0] == "_" and "_commits" in k) or k[0] != "_"}
    )


def counters(monkeypatch):
    """Rows pushed through engines, and segments whose rows are read."""
    found = {"rows": 0, "segments": 0}
    push, read = Engine.push, stream.read_batches

    def pushed(self, rows, *args, **kwargs):
        found["rows"] += rows.flag.shape[0]
        return push(self, rows, *args, **kwargs)

    def opened(segment):
        found["segments"] += 1
        return read(segment)

    monkeypatch.setattr(Engine, "push", pushed)
    monkeypatch.setattr(stream, "read_batches", opened)
    return found


@pytest.mark.parametrize("restarted", [False, True])
def test_a_new_segment_costs_itself(tmp_path, monkeypatch, restarted):
    """Late in the hour: its rows alone go through the engine, and no older segment's rows are read but the last."""
    features = ("mid_price", "ofi_sum_60s", "tfi_60s", "volume_60s", "mid_price_mean_60s")
    world = World(tmp_path, hours=1, seconds=90, features=features, gap=3.0)
    lake, clock = world.place("cost"), [0]
    watcher = world.watcher(lake, clock, grace=2000.0)
    found, costs = counters(monkeypatch), []
    minutes = {}
    for piece in world.pieces:
        minutes.setdefault(piece.time // (90 * SECOND), []).append(piece)
    for minute in sorted(minutes):
        for piece in minutes[minute]:
            deliver(piece, lake / "bronze")
            clock[0] = max(clock[0], piece.time + 1)
        found.update(rows=0, segments=0)
        cycle(watcher)
        rows = sum(pq.read_metadata(p.staged).num_rows for p in minutes[minute])
        costs.append((found["rows"] - rows, found["segments"]))
        if restarted:
            watcher.close()
            watcher = world.watcher(lake, clock, grace=2000.0)
    watcher.close()
    late = costs[16:]
    assert len(late) > 15
    assert max(extra for extra, _ in late) < 100, f"rows beside the segment's own: {late}"
    assert max(opened for _, opened in late) <= 3 * 2 + 12, f"segments read: {late}"


def held(watcher):
    """Bytes of the arrays that a watcher keeps for its lanes."""
    total = 0
    for worker in watcher._workers.values():
        state = worker.lane.engine.state
        total += sum(a.nbytes for a in state.tails.values())
        total += sum(a.nbytes for arrays in state.carried.values() for a in arrays)
        feed = worker.lane._feed
        total += sum(a.nbytes for a in (feed._held or {}).values()) if feed is not None else 0
    return total


def test_memory_does_not_grow_with_the_hour(tmp_path):
    """Windows of 60 s: after some minutes what is kept stays as it is, in memory and on disk."""
    world = World(tmp_path, hours=1, seconds=60, features=("ofi_sum_60s", "tfi_60s"), gap=2.0)
    lake, clock, sizes = world.place("memory"), [0], []
    watcher = world.watcher(lake, clock, grace=2000.0)
    for i, piece in enumerate(world.pieces):
        deliver(piece, lake / "bronze")
        clock[0] = max(clock[0], piece.time + 1)
        if i % 4 == 3:
            cycle(watcher)
            saved = sum(p.stat().st_size for p in (lake / "silver/_state").rglob("*.state"))
            sizes.append((held(watcher), saved))
    early, later = sizes[8:14], sizes[-8:]
    watcher.close()
    assert max(s[0] for s in later) < 1.5 * max(s[0] for s in early)
    assert max(s[1] for s in later) < 2 * max(s[1] for s in early)


def test_memory_does_not_grow_with_the_cycles(live):
    """It runs for weeks: what it remembers of its work is bounded by the partitions, not by how often they grew."""
    lane = live(grace=100)
    lane.add("orderbook", range(0, 3600, 10))
    for now in range(200, 1000, 20):
        lane.look(now)
    assert len(lane.watcher.summary.computed) <= 4
    lane.look(5000)
    assert lane.watcher.summary.counters["rows"] == 360, "rows of the partition, not of all its rewrites"


# ---- the process


COMMAND = [sys.executable, "-c", "from tickstate.runners.cli import main; main()", "run", "--runner", "watcher"]
SLOW = """
import sys, time
from tickstate.lake import files
def hook(name):
    if name == "data:rows":
        open(sys.argv.pop(), "w").close()
        time.sleep(SECONDS)
files.hook = hook
from tickstate.runners.cli import main
main()
"""


def start(lake, *more, code=None):
    command = COMMAND if code is None else [sys.executable, "-c", code, "run", "--runner", "watcher"]
    arguments = ["--bronze", lake / "bronze", "--silver", lake / "silver", "--feature", "mid_price", *more]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits(tmp_path, number):
    lake = bronze.make_lake(tmp_path, [bronze.ALPHA], hours=1, rows=20)
    process = start(lake, "--poll", "600")
    wait_for(lambda: list((lake / "silver/_state").rglob("*.state")))
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert "1 partitions computed" in out


def test_a_signal_in_a_partition_ends_it_after_that(tmp_path):
    """SIGTERM while rows are written: that partition is finished, and one computed meanwhile; nothing is left."""
    lake = bronze.make_lake(tmp_path, [bronze.ALPHA], hours=3, rows=20)
    mark = tmp_path / "mark"
    code = SLOW.replace("SECONDS", "1").replace("sys.argv.pop()", repr(str(mark)))
    process = start(lake, "--poll", "600", code=code)
    wait_for(mark.exists)
    process.terminate()
    _out, err = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    made = len(partitions(lake / "silver"))
    assert made in (1, 2)
    assert not bronze.left_over(lake)
    assert bronze.run(lake, features=["mid_price"]).up_to_date == made


def test_a_second_signal_ends_it_at_once(tmp_path):
    lake = bronze.make_lake(tmp_path, [bronze.ALPHA], hours=1, rows=20)
    mark = tmp_path / "mark"
    code = SLOW.replace("SECONDS", "60").replace("sys.argv.pop()", repr(str(mark)))
    process = start(lake, code=code)
    wait_for(mark.exists)
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == 128 + signal.SIGTERM
    assert not partitions(lake / "silver")
    assert bronze.run(lake, features=["mid_price"]).exit_code == 0
    assert not bronze.left_over(lake)


def test_once_catches_up_and_ends(tmp_path):
    lake = bronze.make_lake(tmp_path, [bronze.ALPHA], hours=4, rows=20)
    found = bronze.features(*COMMAND[3:], "--once", "--lake", lake, "--feature", "mid_price", "--json")
    assert found.returncode == 0, found.stderr
    told = bronze.json.loads(found.stdout)
    assert (told["computed"], told["failed"]) == (4, [])
    broken = bronze.bronze_folder(lake, bronze.ALPHA, bronze.HOURS[0]) / "broken.parquet"
    broken.write_bytes(b"no")
    found = bronze.features(*COMMAND[3:], "--once", "--lake", lake, "--feature", "mid_price")
    assert found.returncode == 1
    assert "broken.parquet" in found.stdout


@pytest.mark.parametrize("events", [True, False])
def test_events_wake_it_before_its_poll(tmp_path, monkeypatch, events):
    """With watchfiles a new segment is seen at once; without, at the next poll, and nothing else differs."""
    pytest.importorskip("watchfiles")
    if not events:
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    lake = bronze.make_lake(tmp_path, [bronze.ALPHA], hours=1, rows=20)
    selection = Selection(lake / "bronze", lake / "silver", features=("mid_price",))
    looked = []

    class Looks(Silent):
        def planned(self, plan):
            looked.append(len(plan.stale))

    watcher = Watcher(selection, Pace(poll=600.0 if events else 1.0), Looks())
    thread = threading.Thread(target=watcher.run)
    thread.start()
    try:
        wait_for(lambda: looked and len(partitions(lake / "silver")) == 1)
        time.sleep(0.6)  # events of its own first files are none of bronze
        folder = bronze.bronze_folder(lake, bronze.ALPHA, bronze.HOURS[0])
        source = next(folder.glob("*.parquet"))
        rows = pq.read_table(partitions(lake / "silver")[0], partitioning=None).num_rows
        late = bronze.table([bronze.row(bronze.START + 1800 * SECOND + 7, 480)])
        pq.write_table(late, folder / "late.tmp")
        (folder / "late.tmp").rename(folder / "late.parquet")
        wait_for(lambda: pq.read_table(partitions(lake / "silver")[0], partitioning=None).num_rows == rows + 1, 15)
        assert source.exists()
    finally:
        watcher.stop()
        thread.join(30)
    assert not thread.is_alive()


def test_stop_ends_a_run_between_two_partitions(tmp_path):
    lake = bronze.make_lake(tmp_path, [bronze.ALPHA, bronze.BETA], hours=4, rows=20)

    class Stops(Silent):
        def finished(self, outcome):
            watcher.stop()

    watcher = Watcher(Selection(lake / "bronze", lake / "silver", features=("mid_price",)), observer=Stops())
    watcher.run()
    assert len(partitions(lake / "silver")) == 2, "the next one is computed when the first is reported"
    assert len(watcher.summary.computed) == 2
    assert not [t for t in threading.enumerate() if t.name.startswith("tickstate")]


def test_cut_and_config_are_as_the_tests_mean_them(world):
    """The pieces hold every row of the source once, and are small."""
    assert sum(pq.read_metadata(p.staged).num_rows for p in world.pieces) == sum(
        pq.read_metadata(p).num_rows for p in (world.root / "source/bronze").rglob("*.parquet")
    )
    assert len(world.pieces) > 50
