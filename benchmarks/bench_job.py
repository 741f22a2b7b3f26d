"""The whole job, Parquet to Parquet, beside its floor: pyarrow alone reading those columns and writing those tables.

Eight busy hours of one lane, trades joined, every default column, in a child process on one core and on two. Loading
and planning are not counted: the time of a run with nothing to do is taken off.
"""

from __future__ import annotations

import os
import statistics

import pytest
from busy import FIRST_HOUR, write_busy_hour
from pinned import rounds

HOURS, ROWS = 8, 100_000
ROUNDS = 5


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """Bronze of eight hours."""
    root = tmp_path_factory.mktemp("eight") / "bronze"
    for i in range(HOURS):
        write_busy_hour(root, ROWS, hour=FIRST_HOUR + i, seed=1 + i)
    return root


@pytest.mark.parametrize("cores", [1, 2])
def test_job(benchmark, note, eight, tmp_path, cores):
    """The single runner in a child, kernels warm; a round of the floor after each of its rounds."""
    if len(os.sched_getaffinity(0)) < cores:
        pytest.skip(f"fewer than {cores} cores")
    held = sorted(os.sched_getaffinity(0))[:cores]
    benchmark.group = "job: eight busy hours"
    found = benchmark.pedantic(lambda: rounds(held, "beside_floor", eight, tmp_path, ROUNDS), rounds=1)
    for i, clock in enumerate(("wall", "CPU")):
        pairs = [(r["job"][i] - r["idle"][i]) / r["floor"][i] for r in found]
        bound = {"at_most": 1.5} if clock == "wall" else {}
        note(f"times the floor, {clock}, median of pairs", statistics.median(pairs), **bound)
    note("rows a second, median", statistics.median(r["rows"] / r["job"][0] for r in found))
