"""An hour of 100,000 rows and one of 10,000,000: time a row and peak memory, in child processes.

Books of one level, and the columns that look back furthest: what they keep of 900 s grows with the rows of the hour.
"""

from __future__ import annotations

from busy import write_busy_hour
from pinned import rounds

SMALL, LARGE = 100_000, 10_000_000
COLUMNS = (
    "ofi_sum", "mlofi_sum", "rv", "mean_relative_spread", "ret", "rv_1s", "trade_windows", "spread_rank",
    "regime_shares", "ofi_beta", "kyle_lambda", "depth_sigma",
)  # fmt: skip


def test_growth_of_an_hour(benchmark, note, tmp_path):
    """CPU time, less that of a run with nothing to do, and of loading kernels: that of an hour of 1,000 rows."""

    def run(rows):
        folder = tmp_path / str(rows)
        bronze = write_busy_hour(folder / "bronze", rows, levels=1)
        (found,) = rounds((), "alone", bronze, folder, "single", *COLUMNS)
        return found["job"][1] - found["idle"][1], found["peak"]

    run(500)  # compiles, if this machine has not yet
    tiny = run(1_000)
    small = run(SMALL)
    benchmark.group = "growth: rows of an hour"
    large = benchmark.pedantic(lambda: run(LARGE), rounds=1)
    a_row = [(found[0] - tiny[0]) / rows for found, rows in ((small, SMALL), (large, LARGE))]
    note("ns a row of the large hour", 1e9 * a_row[1])
    note("time a row, in times of the small hour", a_row[1] / a_row[0], at_most=1.2)
    note("MB at most, large hour", large[1])
    note("peak memory, in times of the small hour", large[1] / small[1], at_most=1.2)
