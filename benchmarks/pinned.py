"""Figures of child processes that are held to some cores: what is timed there cannot borrow another core.

Run as a script it is such a child: ``python pinned.py WHAT ...`` prints one line of JSON a round.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
START = """
import os, runpy, subprocess, sys
cores = [int(c) for c in sys.argv[1].split(",") if c]
if cores:
    os.sched_setaffinity(0, cores)
raise SystemExit(subprocess.run([sys.executable, *sys.argv[2:]]).returncode)
"""


def rounds(cores: Iterable[int], *arguments: object) -> list[dict[str, Any]]:
    """What a child says that may run on ``cores`` only (none: all), line by line.

    A small process starts it, since on Linux a process begins with the peak memory of the one it was forked from.
    """
    held = ",".join(map(str, cores)) if hasattr(os, "sched_setaffinity") else ""
    run = [sys.executable, "-c", START, held, __file__, *map(str, arguments)]
    said = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds (of this process and of children that ended) of a call."""
    wall, cpu = time.perf_counter(), _cpu()
    act()
    return time.perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(r.ru_utime + r.ru_stime for r in both)


def run_lake(bronze: str, silver: str, **how: Any) -> int:
    """Compute the order books of a lake, and return how many rows that were."""
    import tickstate

    summary = tickstate.run(bronze=bronze, silver=silver, channel="orderbook", **how)
    assert summary.exit_code == 0, summary.as_dict()
    return summary.counters.get("rows", 0)


def beside_floor(bronze: str, folder: str, count: str) -> None:
    """The whole job in turns with its floor: pyarrow reading the same columns and writing the same tables alike."""
    import pyarrow.parquet as pq

    from tickstate.lake.schema import BRONZE
    from tickstate.lake.write import ROW_GROUP_ROWS, writer_options

    silver = f"{folder}/silver"
    rows = run_lake(bronze, silver, runner="single")
    tables = [pq.read_table(f, partitioning=None) for f in sorted(Path(silver, "orderbook").rglob("*.parquet"))]
    files = {channel: sorted(Path(bronze, channel).rglob("*.parquet")) for channel in ("orderbook", "trades")}
    options = writer_options(tables[0].schema)

    def floor() -> None:
        for channel, paths in files.items():
            for path in paths:
                pq.read_table(path, columns=list(BRONZE[channel].read), partitioning=None)
        for i, table in enumerate(tables):
            pq.write_table(table, f"{folder}/floor-{i}.parquet", row_group_size=ROW_GROUP_ROWS, **options)

    floor()
    for _ in range(int(count)):
        shutil.rmtree(silver)
        job = timed(lambda: run_lake(bronze, silver, runner="single"))
        idle = timed(lambda: run_lake(bronze, silver, runner="single"))
        below = timed(floor)
        print(json.dumps({"rows": rows, "job": job, "idle": idle, "floor": below}), flush=True)


def alone(bronze: str, folder: str, runner: str) -> None:
    """One run in a fresh process, kernels compiled; and one with nothing to do. Importing tickstate is in neither."""
    import tickstate

    tickstate.run  # noqa: B018 - its names load what they need
    found: list[int] = []
    job = timed(lambda: found.append(run_lake(bronze, f"{folder}/silver", runner=runner)))
    idle = timed(lambda: run_lake(bronze, f"{folder}/silver", runner=runner))
    print(json.dumps({"rows": found[0], "job": job, "idle": idle}))


def loaded(warm: str, bronze: str, folder: str, count: str, *features: str) -> None:
    """A run, again and again, in a process that has loaded its kernels for a lake ``warm``."""
    silver, how = f"{folder}/silver", {"runner": "single", "features": features}
    run_lake(warm, silver, **how)
    for _ in range(int(count)):
        shutil.rmtree(silver)
        job = timed(lambda: run_lake(bronze, silver, **how))
        idle = timed(lambda: run_lake(bronze, silver, **how))
        print(json.dumps({"job": job, "idle": idle, "peak": peak()}), flush=True)
    shutil.rmtree(silver)


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 2**20


if __name__ == "__main__":
    {"beside_floor": beside_floor, "alone": alone, "loaded": loaded}[sys.argv[1]](*sys.argv[2:])
