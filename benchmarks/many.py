"""A lake of many partitions that are all up to date, made without computing one: for the cost of planning alone."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tickstate.lake.commit import commit_path, write_commit
from tickstate.lake.digest import fingerprint
from tickstate.lake.names import Lane, partition_path, time_folder
from tickstate.runners.executor import SilverWorker
from tickstate.runners.plan import make_plan
from tickstate.runners.selection import Selection

FIRST = 474_000
"""An hour of 2024."""
FEATURE = "ofi_sum"


def write_many(root: Path, lanes: int, hours: int, segments: int) -> Selection:
    """Bronze with ``segments`` files an hour and silver of ``FEATURE``; an hour's segments are one file, linked."""
    table = pa.table({"x": [1.0]})
    selection = Selection(root / "bronze", root / "silver", features=(FEATURE,), channels=("orderbook",))
    for lane in (Lane("many", f"L{i:03d}-USD") for i in range(lanes)):
        for hour in range(FIRST, FIRST + hours):
            folder = root / "bronze" / "orderbook" / lane.folder / time_folder("orderbook", hour)
            folder.mkdir(parents=True)
            pq.write_table(table, folder / "segment-000.parquet")
            for i in range(1, segments):
                os.link(folder / "segment-000.parquet", folder / f"segment-{i:03d}.parquet")
    plan = make_plan(selection)
    for span in plan.spans(1):
        _commit(SilverWorker(span, plan.files), table)
    return selection


def _commit(worker: SilverWorker, table: pa.Table) -> None:
    span = worker.span
    for hour in span.hours:
        path = partition_path(span.silver, span.channel, span.lane, hour)
        path.parent.mkdir(parents=True)
        pq.write_table(table, path)
        record = worker._new_record(hour, counters={}, content="", size=path.stat().st_size, file=fingerprint(path))
        write_commit(commit_path(span.silver, span.channel, span.lane, hour), record)
