"""How silver is encoded: what ``writer_options`` costs in time and bytes beside what it might have been.

The table is the silver of the real order books where they lie beside the checkout, else that of the busy hour. Times
are CPU times.
"""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tickstate
from tickstate.lake.write import ROW_GROUP_ROWS, writer_options

pytestmark = pytest.mark.benchmark(timer=time.process_time)
REAL = Path(__file__).parents[2] / "shared" / "bronze"
VARIANTS = {
    "as written": {},
    "dictionaries everywhere": {"use_dictionary": True},
    "statistics everywhere": {"write_statistics": True},
    "zstd 3": {"compression_level": 3},
    "byte stream split": {"use_dictionary": False, "use_byte_stream_split": True},
    "no compression": {"compression": "none", "compression_level": None},
}


@pytest.fixture(scope="module")
def output(busy, tmp_path_factory):
    """The order-book silver of a lake."""
    silver = tmp_path_factory.mktemp("write") / "silver"
    tickstate.run(bronze=REAL if REAL.exists() else busy, silver=silver, runner="single", channel="orderbook")
    return tickstate.scan(silver).to_table().combine_chunks()


@pytest.mark.parametrize("variant", VARIANTS)
def test_write(benchmark, note, tmp_path, output, variant):
    """pyarrow writing the whole table."""
    options = {**writer_options(output.schema), **VARIANTS[variant]}
    if options.get("use_byte_stream_split"):
        options["use_byte_stream_split"] = [f.name for f in output.schema if str(f.type) == "double"]
    path = tmp_path / "silver.parquet"
    benchmark.group = "write: real order books" if REAL.exists() else "write: busy hour"
    benchmark.pedantic(
        lambda: pq.write_table(output, path, row_group_size=ROW_GROUP_ROWS, **options), rounds=3, warmup_rounds=1
    )
    note("bytes a row", path.stat().st_size / output.num_rows)
