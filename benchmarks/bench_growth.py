"""Time a row and peak memory as rows grow, in child processes: of a lane, hour by hour, and of one hour.

Books of one level, and the columns that look back furthest. What they keep of 900 s grows with how dense an hour is,
not with how many there are.
"""

from __future__ import annotations

import statistics

import pytest
from busy import FIRST_HOUR, write_busy_hour
from pinned import rounds

COLUMNS = (
    "ofi_sum", "mlofi_sum", "rv", "mean_relative_spread", "ret", "rv_1s", "trade_windows", "spread_rank",
    "regime_shares", "ofi_beta", "kyle_lambda", "depth_sigma",
)  # fmt: skip
SMALL = 100_000
ROUNDS = 5
"""Of the small job, before a larger one and after it: the machine may be faster at one time than at another."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Of a number of hours with so many rows each: CPU seconds, median, and the peak memory in MB of a process that
    has done it once.

    Kernels are loaded beforehand, and the time of a run with nothing to do, a plan, is taken off.
    """
    root = tmp_path_factory.mktemp("growth")
    warm = write_busy_hour(root / "warm", 500, levels=1)

    def measure(hours, rows, count=1):
        bronze = root / f"{hours}-{rows}"
        for i in range(0 if bronze.exists() else hours):
            write_busy_hour(bronze, rows, levels=1, hour=FIRST_HOUR + i, seed=1 + i)
        found = rounds((), "loaded", warm, bronze, root, count, *COLUMNS)
        return statistics.median(r["job"][1] - r["idle"][1] for r in found), found[0]["peak"]

    return measure


def compared(benchmark, note, measured, hours, rows, *, bounded):
    """Note how a larger job compares with 100,000 rows."""
    before = measured(1, SMALL, ROUNDS)
    cpu, peak = benchmark.pedantic(lambda: measured(hours, rows), rounds=1)
    small = [sum(both) / 2 for both in zip(before, measured(1, SMALL, ROUNDS), strict=True)]
    note("ns a row", 1e9 * cpu / (hours * rows))
    note("time a row, in times of 100,000 rows", cpu / (hours * rows) / (small[0] / SMALL), at_most=1.2)
    note("MB at most", peak)
    note("peak memory, in times of 100,000 rows", peak / small[1], **({"at_most": 1.2} if bounded else {}))


@pytest.mark.parametrize("hours", [10, 100])
def test_growth_of_a_lane(benchmark, note, measured, hours):
    """1,000,000 and 10,000,000 rows, 100,000 an hour."""
    benchmark.group = f"growth: rows of a lane, {hours * SMALL:,}"
    compared(benchmark, note, measured, hours, SMALL, bounded=True)


def test_growth_of_an_hour(benchmark, note, measured):
    """An hour ten times as dense: the rows of the longest window are ten times as many."""
    benchmark.group = "growth: rows of an hour, 1,000,000"
    compared(benchmark, note, measured, 1, 10 * SMALL, bounded=False)
