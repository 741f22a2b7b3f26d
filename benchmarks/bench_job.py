"""The whole job, Parquet to Parquet, beside its floor: pyarrow alone reading those columns and writing that table."""

from __future__ import annotations

import statistics
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from busy import ROWS

import tickstate
from tickstate.lake.schema import BRONZE
from tickstate.lake.write import ROW_GROUP_ROWS, writer_options

ROUNDS = 7


@pytest.fixture(scope="module")
def floor(busy, tmp_path_factory):
    """A function: read the columns the job reads, write the table the job writes, nothing in between."""
    folder = tmp_path_factory.mktemp("floor")
    files = {channel: sorted((busy / channel).rglob("*.parquet")) for channel in ("orderbook", "trades")}
    tickstate.run(bronze=busy, silver=folder / "silver", runner="single", channel="orderbook")
    output = tickstate.scan(folder / "silver").to_table().combine_chunks()
    options = writer_options(output.schema)

    def read_and_write() -> None:
        for channel, paths in files.items():
            tables = [pq.read_table(f, columns=list(BRONZE[channel].types), partitioning=None) for f in paths]
            assert channel == "trades" or sum(t.num_rows for t in tables) == ROWS == output.num_rows
        pq.write_table(output, folder / "floor.parquet", row_group_size=ROW_GROUP_ROWS, **options)

    return read_and_write


def test_floor(benchmark, floor):
    """pyarrow alone, with its own threads."""
    benchmark.group = "job: one busy hour"
    benchmark.pedantic(floor, rounds=ROUNDS, warmup_rounds=1)


def test_job(benchmark, note, busy, floor, tmp_path):
    """The single runner in this process, kernels warm; a round of the floor before each of its rounds."""
    floors: list[float] = []
    tasks = iter(range(1_000))

    def one_floor():
        began = time.perf_counter()
        floor()
        floors.append(time.perf_counter() - began)
        return (tmp_path / f"silver-{next(tasks)}",), {}

    def job(silver):
        summary = tickstate.run(bronze=busy, silver=silver, runner="single", channel="orderbook")
        assert summary.exit_code == 0 and summary.counters["rows"] == ROWS

    benchmark.group = "job: one busy hour"
    benchmark.pedantic(job, setup=one_floor, rounds=ROUNDS, warmup_rounds=1)
    times = benchmark.stats.stats.data
    pairs = [job / below for job, below in zip(times, floors[-len(times) :], strict=True)]
    note("times the floor, median of pairs", statistics.median(pairs), at_most=2.5)
    note("times the floor, best of each", min(times) / min(floors[-len(times) :]))
    note("rows a second, median", ROWS / statistics.median(times))
    benchmark.extra_info["cpu threads of pyarrow"] = pa.cpu_count()
