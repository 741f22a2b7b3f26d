"""Time a row and peak memory as rows grow, in child processes: of a lane, hour by hour, and of one hour.

Books of one level, and the columns that look back furthest. What they keep of 900 s grows with how dense an hour is,
not with how many there are.
"""

from __future__ import annotations

import pytest
from busy import FIRST_HOUR, write_busy_hour
from pinned import rounds

COLUMNS = (
    "ofi_sum", "mlofi_sum", "rv", "mean_relative_spread", "ret", "rv_1s", "trade_windows", "spread_rank",
    "regime_shares", "ofi_beta", "kyle_lambda", "depth_sigma",
)  # fmt: skip
SMALL = 100_000


def measured(folder, hours, rows):
    """CPU seconds of a run, less those of a run with nothing to do, and its peak memory in MB."""
    bronze = folder / "bronze"
    for i in range(hours):
        write_busy_hour(bronze, rows, levels=1, hour=FIRST_HOUR + i, seed=1 + i)
    (found,) = rounds((), "alone", bronze, folder, "single", *COLUMNS)
    return found["job"][1] - found["idle"][1], found["peak"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An hour of 100,000 rows; the time to load kernels, that of an hour of 1,000 rows, is taken off."""
    root = tmp_path_factory.mktemp("growth")
    measured(root / "compiles", 1, 500)
    tiny = measured(root / "tiny", 1, 1_000)
    return *measured(root / "small", 1, SMALL), tiny[0]


def compared(note, small, found, rows, *, bounded):
    """Note how a larger job compares with the small one."""
    (cpu, peak), (small_cpu, small_peak, loading) = found, small
    a_row, before = (cpu - loading) / rows, (small_cpu - loading) / SMALL
    note("ns a row", 1e9 * a_row)
    note("time a row, in times of 100,000 rows", a_row / before, at_most=1.2)
    note("MB at most", peak)
    note("peak memory, in times of 100,000 rows", peak / small_peak, **({"at_most": 1.2} if bounded else {}))


@pytest.mark.parametrize("hours", [10, 100])
def test_growth_of_a_lane(benchmark, note, small, tmp_path, hours):
    """1,000,000 and 10,000,000 rows, 100,000 an hour."""
    benchmark.group = f"growth: rows of a lane, {hours * SMALL:,}"
    found = benchmark.pedantic(lambda: measured(tmp_path, hours, SMALL), rounds=1)
    compared(note, small, found, hours * SMALL, bounded=True)


def test_growth_of_an_hour(benchmark, note, small, tmp_path):
    """An hour ten times as dense: the rows of the longest window are ten times as many."""
    benchmark.group = "growth: rows of an hour, 1,000,000"
    found = benchmark.pedantic(lambda: measured(tmp_path, 1, 10 * SMALL), rounds=1)
    compared(note, small, found, 10 * SMALL, bounded=False)
