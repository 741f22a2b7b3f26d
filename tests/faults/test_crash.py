"""kill -9 at every step of every commit: readers never see a torn file, and the next run makes all whole."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import bronze
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, HOURS, SECOND, START

DRIVER = Path(__file__).with_name("driver.py")
LATE = START + 3500 * SECOND
FEATURES = ("mid_price", "ofi_sum_60s")
"""Few kernels to load: what is killed here is the writing."""


class World:
    """A lane of two hours, computed; then late rows and a broken file, which make both hours stale."""

    def __init__(self, root: Path) -> None:
        self.root = root
        lake = bronze.make_lake(root / "before", [ALPHA], hours=2, rows=30)
        bronze.run(lake, features=FEATURES)
        self.old = bronze.tree(lake / "silver")
        shutil.copytree(lake, root / "after")
        lake = root / "after"
        bronze.write(lake / "bronze", bronze.table([bronze.row(LATE + i, 480 + i) for i in range(3)]), "late.parquet")
        (bronze.bronze_folder(lake, ALPHA, HOURS[0]) / "broken.parquet").write_bytes(b"PAR1")
        bronze.run(lake, features=FEATURES)
        self.new = bronze.tree(lake / "silver")
        assert len(self.old) == 4
        assert sum(v != self.new[k] for k, v in self.old.items()) == 4, "everything changes"
        assert len(self.new) == 5, "and a quarantine list is added"

    def lake(self, name: str, fresh: bool) -> Path:
        """The changed bronze, with the output of before or with none."""
        lake = self.root / name
        shutil.copytree(self.root / "after/bronze", lake / "bronze")
        if not fresh:
            shutil.copytree(self.root / "before/silver", lake / "silver")
        return lake


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("crash"))


class Reader(threading.Thread):
    """Reads the partitions again and again, as a user's notebook would."""

    def __init__(self, lake: Path, world: World, fresh: bool) -> None:
        super().__init__(daemon=True)
        self.problems: list[str] = []
        self.reads = 0
        self._stop_now = threading.Event()
        self._lake, self._world, self._fresh = lake, world, fresh

    def run(self) -> None:
        seen: set[bytes] = set()
        names = [n for n in self._world.old if n.endswith(".parquet")]
        last = False
        while not last:
            last = self._stop_now.wait(0.0005)  # once more after the end; and leave a core to the run
            for name in names:
                self.look(name, seen)

    def look(self, name: str, seen: set[bytes]) -> None:
        try:
            data = (self._lake / "silver" / name).read_bytes()
        except FileNotFoundError:
            if not self._fresh:
                self.problems.append(f"{name} was gone")
            return
        self.reads += 1
        if data in seen:
            return
        seen.add(data)
        if data not in (self._world.old[name], self._world.new[name]):
            self.problems.append(f"{name} is neither the old nor the new file")
        try:
            pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        except Exception as error:
            self.problems.append(f"{name} is torn: {error}")

    def finish(self) -> list[str]:
        self._stop_now.set()
        self.join()
        return self.problems


class Driver:
    """A process that does runs which are killed."""

    def __init__(self) -> None:
        command = [sys.executable, DRIVER, "serve", *FEATURES]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def single(self, lake: Path, step: str, occurrence: int = 0, writing: str = "prompt") -> int:
        """A single run in a process of its own; returns its exit code, minus the signal that killed it."""
        self._process.stdin.write(f"{lake} {step} {occurrence} {writing}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def late(self, lake: Path, step: str, occurrence: int = 0) -> int:
        """A single run whose first hour is written when its second is computed."""
        return self.single(lake, step, occurrence, "late")

    def batch(self, lake: Path, step: str, occurrence: int) -> int:
        """A batch run in a process group of its own."""
        environment = {**os.environ, "TICKSTATE_KILL": f"{step}:{occurrence}"}
        command = [sys.executable, DRIVER, lake, "batch", *FEATURES]
        return subprocess.run(command, env=environment, start_new_session=True, timeout=100, check=False).returncode

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def driver():
    found = Driver()
    yield found
    found.close()


def points(world: World, run: Callable[..., int], name: str, fresh: bool) -> list[tuple[str, int]]:
    """Every step that a run goes through, as (name, occurrence)."""
    lake = world.lake(name, fresh)
    assert run(lake, "record") == 1, "1: the broken file"
    assert bronze.tree(lake / "silver") == world.new
    count: Counter[str] = Counter()
    found = []
    for step in Path(f"{lake}.steps").read_text().split():
        count[step] += 1
        found.append((step, count[step]))
    return found


def crash(world: World, lake: Path, fresh: bool, killed: Callable[[], int]) -> list[str]:
    """Kill a run at a step, run again; what is wrong with what is left."""
    reader = Reader(lake, world, fresh)
    reader.start()
    code = killed()
    bronze.run(lake, features=FEATURES)
    found = reader.finish()
    if code != -signal.SIGKILL:
        found.append(f"was not killed: exit code {code}")
    after = bronze.tree(lake / "silver")
    left = [path for path in bronze.left_over(lake) if "/_state/" not in path]  # a cache: its next writer clears up
    found += [f"left over: {path}" for path in left if not zombie(path)]
    found += [f"{'differs' if k in after else 'missing'}: {k}" for k in world.new if after.get(k) != world.new[k]]
    found += [f"too much: {k}" for k in after if k not in world.new and f"silver/{k}" not in left]
    if not reader.reads:
        found.append("the reader read nothing")
    if bronze.run(lake, features=FEATURES).computed:
        found.append("a third run found work")
    shutil.rmtree(lake)
    return found


def crash_each(world: World, fresh: bool, chosen: list[tuple[str, int]], kill: Callable[..., int], capsys: Any) -> None:
    """Kill a run at each of the points."""
    problems = []
    for i, (step, occurrence) in enumerate(chosen):
        lake = world.lake(f"{kill.__name__}-{fresh}-{i}", fresh)
        found = crash(world, lake, fresh, partial(kill, lake, step, occurrence))
        problems += [f"killed at {step} {occurrence}: {text}" for text in found]
    with capsys.disabled():
        print(f" [{len(chosen)} points]", end="")
    assert not problems, "\n".join(problems)


def zombie(path: str) -> bool:
    """Whether the process that left a file is dead but, for want of an init that reaps it, still listed."""
    for part in Path(path).name.split("-"):
        with suppress(OSError):
            status = Path(f"/proc/{part}/stat").read_text() if part.isdigit() else ""
            if status.rpartition(")")[2].split()[:1] == ["Z"]:
                return True
    return False


STEPS = {
    *(f"{label}:{at}" for label in ("data", "commit") for at in ("begin", "written", "synced", "replaced", "durable")),
    "data:rows",
    "compute:chunk",
    "quarantine:written",
    "quarantine:replaced",
}


def test_killed_at_every_step_while_rewriting(world, driver, capsys):
    """Every occurrence of every step of a run that replaces two partitions."""
    found = points(world, driver.single, "rewrite", fresh=False)
    assert {step for step, _ in found} >= STEPS
    assert max(k for _, k in found) >= 2
    crash_each(world, False, found, driver.single, capsys)


def test_killed_at_every_step_while_two_are_under_way(world, driver, capsys):
    """The same where each step of the first hour's commit comes after the second is computed."""
    found = points(world, driver.late, "late", fresh=False)
    assert {step for step, _ in found} >= STEPS
    assert found.index(("compute:chunk", 2)) < found.index(("data:rows", 1))
    assert found.index(("data:begin", 2)) < found.index(("data:rows", 1))
    assert found.index(("commit:durable", 1)) < found.index(("data:written", 2)), "one after the other"
    crash_each(world, False, found, driver.late, capsys)


def test_killed_at_every_step_of_a_first_run(world, driver, capsys):
    """No output yet: the first occurrence of each."""
    found = [point for point in points(world, driver.single, "first", fresh=True) if point[1] == 1]
    crash_each(world, True, found, driver.single, capsys)


def test_a_batch_killed_whole(world, driver, capsys):
    """Parent and workers at once, as by a power cut, around each replace."""
    steps = ("data:rows", "data:synced", "data:replaced", "commit:synced", "commit:replaced")
    crash_each(world, False, [(step, 1) for step in steps], driver.batch, capsys)
