"""Peak memory of a run does not grow with the hour, nor the number of open files with that of segments."""

from __future__ import annotations

import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import bronze as walks
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from busy import write_busy_hour

import tickstate

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
    # three row groups: from then on one is computed, one is encoded and one is read at all times
    small, large = peak_of_run(tmp_path, 200_000), peak_of_run(tmp_path, 2_000_000)
    print(f"peak of 200,000 rows {small:.0f} MB, of 2,000,000 rows {large:.0f} MB")
    assert large <= 1.25 * small + 96  # MB: columns keep the rows of a window of 900 s, here a quarter of the hour


def write_small_files(root: Path, count: int, overlapping: bool) -> None:
    """An hour in segments of three rows: one after the other, or each from the hour's beginning to its end."""
    table = walks.table([walks.row(walks.START + i, 480 + i) for i in range(3)])
    column, field = table.column_names.index("capture_ts"), table.schema.field("capture_ts")
    folder = walks.write(root, table, "segment-00000.parquet").parent
    apart = np.array([0, 1000, 3500]) * walks.SECOND if overlapping else np.array([0, 1, 2])
    step = 7 if overlapping else 3500 * walks.SECOND // count
    for i in range(1, count):
        times = pa.array(walks.START + i * step + apart).cast(field.type)
        pq.write_table(table.set_column(column, field, times), folder / f"segment-{i:05d}.parquet")


@contextmanager
def at_most_open(more: int):
    """No more than so many files may be open beside those that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = {int(p.name) for p in Path("/proc/self/fd").iterdir()} if Path("/proc/self/fd").exists() else {64}
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("overlapping", [False, True])
def test_thousands_of_small_files_are_not_open_at_once(tmp_path, overlapping):
    count = 3000
    write_small_files(tmp_path / "bronze", count, overlapping)
    with at_most_open(24):
        summary = tickstate.run(
            bronze=tmp_path / "bronze",
            silver=tmp_path / "silver",
            runner="single",
            channel="orderbook",
            features="spread",
        )
    assert (summary.exit_code, summary.counters["rows"]) == (0, 3 * count)
    times = (
        tickstate.scan(tmp_path / "silver").to_table(columns=["capture_ts"])["capture_ts"].cast(pa.int64()).to_numpy()
    )
    assert (np.diff(times) >= 0).all()
