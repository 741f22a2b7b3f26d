"""Peak memory of a run does not grow with the hour."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from busy import write_busy_hour

LEVELS = 5
MEGABYTE = 1 << 20
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss

LAUNCH = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
RUN = """
import sys, tickstate
summary = tickstate.run(bronze=sys.argv[1], silver=sys.argv[2], runner="single", channel="orderbook")
assert summary.exit_code == 0 and summary.counters["rows"] == int(sys.argv[3]), summary.as_dict()
"""


def peak_of_run(folder: Path, rows: int) -> float:
    """Peak resident megabytes of a process that computes one hour.

    It is started by a small process of its own, since on Linux a process begins with the peak of the one it was
    forked from.
    """
    bronze = write_busy_hour(folder / f"bronze-{rows}", rows, levels=LEVELS)
    run = [sys.executable, "-c", LAUNCH, RUN, str(bronze), str(folder / f"silver-{rows}"), str(rows)]
    said = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(said) * UNIT / MEGABYTE


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_hour(tmp_path):
    peak_of_run(tmp_path, 1_000)  # compiles, if this machine has not yet
    small, large = peak_of_run(tmp_path, 100_000), peak_of_run(tmp_path, 2_000_000)
    print(f"peak of 100,000 rows {small:.0f} MB, of 2,000,000 rows {large:.0f} MB")
    assert large <= 1.25 * small + 96  # MB: columns keep the rows of a window of 900 s, here a quarter of the hour
