"""One lane in parallel: 48 hours on two cores, spans of hours as tasks, against one core."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from busy import FIRST_HOUR, write_busy_hour
from pinned import rounds

from tickstate.runners import KEEPS_MEMORY

HOURS, ROWS = 48, 100_000


def test_two_cores_on_one_lane(benchmark, note, tmp_path, monkeypatch):
    """Fresh processes: one core, two, two, the other one; the time of a run with nothing to do is taken off."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("one core")
    monkeypatch.setenv(*KEEPS_MEMORY)  # for both, as on the command line
    bronze = tmp_path / "bronze"
    for i in range(HOURS):
        write_busy_hour(bronze, ROWS, hour=FIRST_HOUR + i, seed=1 + i)

    def run(held, runner):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        (found,) = rounds(held, "alone", bronze, folder, runner)
        shutil.rmtree(folder)
        return [job - idle for job, idle in zip(found["job"], found["idle"], strict=True)]

    (tmp_path / "warm").mkdir()
    rounds(cores, "alone", write_busy_hour(tmp_path / "warm" / "bronze", 1_000), tmp_path / "warm", "single")  # warm
    benchmark.group = "parallel: 48 hours of a lane"
    first = run(cores[:1], "single")
    two = [benchmark.pedantic(lambda: run(cores, "batch"), rounds=1), run(cores, "batch")]
    one = [first, run(cores[1:], "single")]  # before and after, on either core: one may have a busier neighbour
    wall, cpu = ([sum(r[i] for r in found) for found in (one, two)] for i in (0, 1))
    note("times faster on two cores than on one", wall[0] / wall[1], at_least=1.7)
    note("CPU time of two, in times of one", cpu[1] / cpu[0])
