"""The watcher killed with SIGKILL at every step it has, one by one: readers see whole files that only grow, and the
next runs end at the bytes of a clean one."""

from __future__ import annotations

import io
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import bronze
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.delivery import FAR, FIRST, World, cycle, deliver, differences, partitions, tree
from lakes import HOUR, SECOND

from tickstate.runners.run import run_single
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher

DRIVER = Path(__file__).with_name("watch_driver.py")
FEATURES = ("mid_price", "ofi_ewma_60s")
"""Those of the driver."""
GRACE = 120.0


class Driver:
    """Does watcher runs that are killed."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, bronze_root, silver, clock, step="record", occurrence=0):
        self._process.stdin.write(f"{bronze_root} {silver} {clock} {step} {occurrence}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


class Reader(threading.Thread):
    """Reads every partition again and again: none may be torn, go missing, or shrink."""

    def __init__(self, silver):
        super().__init__(daemon=True)
        self.silver, self.problems, self.reads = silver, [], 0
        self._over = threading.Event()
        self._seen, self._rows = {}, {}

    def run(self):
        last = False
        while not last:
            last = self._over.wait(0.005)
            for path in {*self._rows, *partitions(self.silver)}:
                self._look(path)

    def _look(self, path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self.problems.append(f"{path} was gone")
            return
        self.reads += 1
        if self._seen.get(path) == data:
            return
        self._seen[path] = data
        try:
            rows = pq.read_table(io.BytesIO(data), page_checksum_verification=True).num_rows
        except (pa.ArrowException, OSError) as error:
            self.problems.append(f"{path} is torn: {error}")
            return
        if rows < self._rows.get(path, 0):
            self.problems.append(f"{path} shrank from {self._rows[path]} to {rows} rows")
        self._rows[path] = rows

    def finish(self):
        self._over.set()
        self.join()
        return self.problems


@pytest.fixture(scope="module")
def driver():
    found = Driver()
    yield found
    found.close()


class Scene:
    """Hour 0 closed, hour 1 open and saved; then more segments, a late one for hour 0 and a broken file."""

    def __init__(self, root, driver):
        self.world = World(root / "world", hours=2, seconds=900, features=FEATURES, gap=30.0, assign=())
        self.root, self.driver = root, driver
        books = [p for p in self.world.pieces if "orderbook" in str(p.relative)]
        late = [p for p in books if p.time < (FIRST + 1) * HOUR][-1]
        half = (FIRST + 1) * HOUR + 1800 * SECOND
        self.before, self.after = root / "before", root / "after"
        for piece in self.world.pieces:
            deliver(piece, self.after)
            if piece is not late and piece.time < half:
                deliver(piece, self.before)
        broken = (self.after / books[0].relative).with_name("broken.parquet")
        broken.write_bytes(b"PAR1")
        self.old = root / "old"
        assert driver.run(self.before, self.old, half) == 0
        Path(f"{self.old}.steps").unlink()
        clean = root / "clean"
        assert run_single(Selection(self.after, clean, features=FEATURES)).exit_code == 1, "the broken file"
        self.want = tree(clean)
        self.open_clock = half + 1200 * SECOND

    def silver(self, name, fresh=False):
        path = self.root / name
        if not fresh:
            shutil.copytree(self.old, path)
        return path

    def points(self, name, clock, fresh=False):
        silver = self.silver(name, fresh)
        self.driver.run(self.after, silver, clock)
        count, found = Counter(), []
        for step in Path(f"{silver}.steps").read_text().split():
            count[step] += 1
            found.append((step, count[step]))
        return found

    def kill(self, name, clock, step, occurrence, fresh=False):
        """What is wrong after a run that is killed there, and one that is not."""
        silver = self.silver(name, fresh)
        reader = Reader(silver)
        reader.start()
        code = self.driver.run(self.after, silver, clock, step, occurrence)
        for now in (clock, FAR):
            watcher = Watcher(
                Selection(self.after, silver, features=FEATURES), Pace(grace=GRACE), now=lambda at=now: at
            )
            assert watcher.run(once=True).exit_code == 1
        found = reader.finish()
        if code != -signal.SIGKILL:
            found.append(f"was not killed: {code}")
        if not reader.reads:
            found.append("nothing was read")
        got = {k: v for k, v in tree(silver).items() if "/.tmp-" not in k}
        found += differences(got, self.want)
        shutil.rmtree(silver)
        return [f"killed at {step} {occurrence}: {text}" for text in found]


@pytest.fixture(scope="module")
def scene(tmp_path_factory, driver):
    return Scene(tmp_path_factory.mktemp("watch-faults"), driver)


LABELS = {
    f"{x}:{at}" for x in ("data", "commit", "state") for at in ("begin", "written", "synced", "replaced", "durable")
}


def test_killed_at_every_step(scene, capsys):
    """A run over an hour that grows, a late segment, a chain and a broken file; after each kill a watcher goes on in
    the open hour, then the hours close."""
    points = scene.points("record", scene.open_clock)
    assert {step for step, _ in points} >= {*LABELS, "data:rows", "compute:chunk", "quarantine:replaced"}
    problems = []
    for i, (step, occurrence) in enumerate(points):
        problems += scene.kill(f"kill-{i}", scene.open_clock, step, occurrence)
    with capsys.disabled():
        print(f" [{len(points)} points]", end="")
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:40])


def test_killed_at_some_steps_of_a_first_run(scene, capsys):
    """No output yet: each step by its name."""
    points = scene.points("record-fresh", FAR, fresh=True)
    last = dict(points)
    chosen = sorted({(step, k) for step in last for k in (1,)})
    problems = []
    for i, (step, occurrence) in enumerate(chosen):
        problems += scene.kill(f"fresh-{i}", FAR, step, occurrence, fresh=True)
    with capsys.disabled():
        print(f" [{len(chosen)} points]", end="")
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:40])


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_while_segments_arrive(scene, seed):
    """Segments in random order, kills at random steps, a batch run beside; seed given by the parameter."""
    rng, world = random.Random(seed), scene.world
    bronze_root, silver = scene.root / f"arriving-{seed}", scene.root / f"arrived-{seed}"
    bronze_root.mkdir()
    order = [*world.pieces]
    rng.shuffle(order)
    steps = sorted(LABELS)
    clock, killed = 0, 0
    for i, piece in enumerate(order):
        deliver(piece, bronze_root)
        clock = max(clock, piece.time + 1)
        if i % 3 == 2:
            code = scene.driver.run(bronze_root, silver, clock, rng.choice(steps), rng.randrange(1, 4))
            killed += code == -signal.SIGKILL
    reader = Reader(silver)
    reader.start()
    run_single(Selection(bronze_root, silver, features=FEATURES))
    watcher = Watcher(Selection(bronze_root, silver, features=FEATURES), Pace(grace=GRACE), now=lambda: FAR)
    cycle(watcher)
    watcher.close()
    problems = reader.finish()
    got = {k: v for k, v in tree(silver).items() if "/.tmp-" not in k}
    assert not (problems + differences(got, world.want)), f"seed {seed}, {killed} kills"
    assert killed >= 3
    left = [p for p in bronze.left_over(silver) if "_state" not in p]
    assert len(left) <= 1
