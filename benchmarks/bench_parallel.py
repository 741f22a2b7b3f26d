"""One lane in parallel: 48 hours on two cores, spans of hours as tasks, against one core."""

from __future__ import annotations

import os

import pytest
from busy import FIRST_HOUR, write_busy_hour
from pinned import rounds

HOURS, ROWS = 48, 100_000


def test_two_cores_on_one_lane(benchmark, note, tmp_path):
    """Each run in a fresh process; the time of a run with nothing to do is taken off."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("one core")
    bronze = tmp_path / "bronze"
    for i in range(HOURS):
        write_busy_hour(bronze, ROWS, hour=FIRST_HOUR + i, seed=1 + i)

    def run(held, runner):
        (tmp_path / runner).mkdir()
        (found,) = rounds(held, "alone", bronze, tmp_path / runner, runner)
        return [job - idle for job, idle in zip(found["job"], found["idle"], strict=True)]

    (tmp_path / "warm").mkdir()
    rounds(cores, "alone", write_busy_hour(tmp_path / "warm" / "bronze", 1_000), tmp_path / "warm", "single")  # warm
    one = run(cores[:1], "single")
    benchmark.group = "parallel: 48 hours of a lane"
    two = benchmark.pedantic(lambda: run(cores, "batch"), rounds=1)
    note("times faster on two cores than on one", one[0] / two[0], at_least=1.7)
    note("CPU time of two, in times of one", two[1] / one[1])
