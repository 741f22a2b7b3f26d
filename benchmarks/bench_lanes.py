"""Many lanes: what a lane costs among 64 of them, and the most memory a process holds for it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tickstate
from benchmarks.busy import write_busy_hour
from benchmarks.children import FEATURES, run_child

LANES = (1, 8, 64)
ROWS = 10_000
"""An hour of a lane."""


@pytest.fixture(scope="module")
def lakes(tmp_path_factory):
    """Bronze by number of lanes, each lane the same hour."""
    folder = tmp_path_factory.mktemp("lanes")
    tables = {path: pq.ParquetFile(path).read() for path in write_busy_hour(folder / "one", ROWS).rglob("*.parquet")}
    for lanes in LANES:
        for i in range(lanes):
            for path, table in tables.items():
                below = str(path.relative_to(folder / "one")).replace("symbol=BTC-USDT", f"symbol=L{i:02d}-USDT")
                target = folder / f"{lanes}" / below
                target.parent.mkdir(parents=True, exist_ok=True)
                place = table.schema.get_field_index("symbol")
                named = table.set_column(place, "symbol", pa.repeat(f"L{i:02d}-USDT", table.num_rows))
                pq.write_table(named, target, compression="zstd")
    return {lanes: folder / f"{lanes}" for lanes in LANES}


@pytest.fixture(scope="module")
def first(lakes, tmp_path_factory):
    """What a process costs by number of lanes, kernels compiled before."""
    folder = tmp_path_factory.mktemp("peaks")
    command = (FEATURES, "run", "--runner", "single", "--channel", "orderbook")
    run_child(*command, "--bronze", lakes[1], "--silver", folder / "warm")
    return {n: run_child(*command, "--bronze", bronze, "--silver", folder / f"{n}") for n, bronze in lakes.items()}


@pytest.mark.parametrize("lanes", LANES)
def test_lanes(benchmark, note, lakes, first, tmp_path, lanes):
    """The single runner in this process over all lanes; memory is that of a process of its own."""
    silvers = iter(range(1_000))

    def job(silver):
        summary = tickstate.run(bronze=lakes[lanes], silver=silver, runner="single", channel="orderbook")
        assert summary.exit_code == 0 and len(summary.plan.stale) == lanes

    benchmark.group = "growth: lanes"
    benchmark.pedantic(job, setup=lambda: ((tmp_path / f"{next(silvers)}",), {}), rounds=3, warmup_rounds=1)
    benchmark.extra_info["lanes"] = lanes
    note("seconds a lane, median", benchmark.stats.stats.median / lanes)
    note("MB, a process of its own", first[lanes].peak)
    if lanes == max(LANES):
        note("times the memory of one lane", first[lanes].peak / first[1].peak, at_most=1.2)
