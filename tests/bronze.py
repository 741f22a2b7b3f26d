"""Small bronze lakes for tests of everything around the numbers: rows, files, lakes, and what a run left behind.

Prices walk, so that every snapshot differs; nothing here imports tickstate but `run`.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SECOND = 1_000_000
HOUR = 3600 * SECOND
START = int(datetime(2024, 3, 1, 22, tzinfo=UTC).timestamp()) * SECOND
"""The first hour of every lake here: two hours before a UTC midnight, so that four hours cross a day."""

TIME = pa.timestamp("us", tz="UTC")
LEVEL = pa.struct([("price", pa.float64()), ("size", pa.float64())])
SCHEMA = pa.schema(
    {
        "exchange": pa.string(), "symbol": pa.string(),
        "year": pa.int32(), "month": pa.int32(), "day": pa.int32(), "hour": pa.int32(),
        "collected_at": pa.int64(), "capture_ts": TIME, "timestamp": pa.int64(), "nonce": pa.int64(),
        "bids": pa.list_(LEVEL), "asks": pa.list_(LEVEL),
    }
)  # fmt: skip
ALPHA, BETA = ("alpha", "BTC-USDT"), ("beta", "ETH-USDT")
HOURS = ("2024-03-01T22", "2024-03-01T23", "2024-03-02T00", "2024-03-02T01")
CHEAP = ("mid_price",)
"""A selection for tests in which any column will do."""


def book(mid: float, levels: int = 6, size: float = 1.0) -> dict[str, list[dict[str, float]]]:
    """One valid snapshot around ``mid``, ticks of 0.5, a spread of 1."""
    rungs = np.arange(levels)
    return {
        "bids": [{"price": mid - 0.5 - 0.5 * i, "size": size + 0.25 * i} for i in rungs],
        "asks": [{"price": mid + 0.5 + 0.5 * i, "size": size + 0.5 * i} for i in rungs],
    }


def row(ts: int, mid: float = 100.0, *, lane: tuple[str, str] = ALPHA, **changed: Any) -> dict[str, Any]:
    """One bronze row at ``ts`` (us); ``changed`` replaces columns."""
    time = datetime.fromtimestamp(ts // SECOND, UTC)
    found = {
        "exchange": lane[0], "symbol": lane[1],
        "year": time.year, "month": time.month, "day": time.day, "hour": time.hour,
        "collected_at": ts // 1000 + 3, "capture_ts": ts, "timestamp": ts // 1000 - 5, "nonce": 7, **book(mid),
    }  # fmt: skip
    return {**found, **changed}


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows as a table of the bronze schema."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def walk(lane: tuple[str, str], hours: int = 4, rows: int = 120, seed: int = 1) -> pa.Table:
    """A lane's order books, ``rows`` an hour: jittered times, some equal, a walking mid, some flagged and repeated."""
    rng = np.random.Generator(np.random.PCG64([seed, *lane[0].encode()]))
    n = hours * rows
    times = START + (np.arange(n) + rng.random(n) * 0.9) * (HOUR / rows)
    times = times.astype(np.int64)
    for i in range(5, n, 17):
        if i % rows:
            times[i] = times[i - 1]
    mids = 500 + 0.5 * np.cumsum(rng.integers(-3, 4, n))
    sizes = np.round(rng.lognormal(0, 1, n), 3)
    found = []
    for i in range(n):
        one = row(int(times[i]), float(mids[i]), lane=lane, nonce=1000 + i)
        one |= book(float(mids[i]), int(rng.integers(3, 9)), float(sizes[i]))
        if i % 50 == 20:
            one["bids"] = []
        if i % 50 == 30:
            one["asks"], one["nonce"] = None, None
        if i % 50 == 40:
            one["bids"][0]["price"] = one["asks"][0]["price"] + 1
        found.append(one)
        if i % 40 == 25:
            found.append(dict(one))
    return table(found)


def folder(lane: tuple[str, str], ts: int, *, padded: bool = False) -> str:
    """The hive folders of a lane's hour."""
    t = datetime.fromtimestamp(ts // SECOND, UTC)
    form = "02d" if padded else "d"
    date = "/".join(
        f"{k}={format(v, form)}" for k, v in zip(("year", "month", "day", "hour"), t.timetuple(), strict=False)
    )
    return f"exchange={lane[0]}/symbol={lane[1].replace('/', '%2F')}/{date}"


def write(bronze: Path, found: pa.Table, name: str = "a.parquet", *, padded: bool = False, **options: Any) -> Path:
    """One segment: rows of one lane's hour, by their own columns; returns its path."""
    first = found.slice(0, 1).to_pylist()[0]
    ts = round(datetime(*(first[c] for c in ("year", "month", "day", "hour")), tzinfo=UTC).timestamp()) * SECOND
    path = bronze / "orderbook" / folder((first["exchange"], first["symbol"]), ts, padded=padded) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(found, path, **options)
    return path


def times(found: pa.Table) -> np.ndarray:
    """``capture_ts`` in us."""
    return found["capture_ts"].cast(pa.int64()).to_numpy()


def write_lane(bronze: Path, found: pa.Table, every: int = 1200 * SECOND, prefix: str = "s") -> list[Path]:
    """A lane in segments of ``every`` us, counted from each hour's beginning."""
    ts = times(found)
    cells = ts // HOUR * HOUR + ts % HOUR // every
    edges = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), len(ts)]
    paths = []
    for begin, end in pairwise(edges):
        part = found.slice(begin, end - begin)
        paths.append(write(bronze, part, f"{prefix}{ts[begin] % HOUR // SECOND:04d}.parquet"))
    return paths


def make_lake(lake: Path, lanes: Sequence[tuple[str, str]] = (ALPHA, BETA), **chosen: int) -> Path:
    """A lake with ``bronze`` in it, three segments an hour."""
    for lane in lanes:
        write_lane(lake / "bronze", walk(lane, **chosen))
    return lake


def run(lake: Path, **chosen: Any) -> Any:
    """``tickstate.run`` on a lake, in this process and without gold unless told otherwise."""
    import tickstate

    return tickstate.run(lake, **{"runner": "single", "tier": "silver", **chosen})


@cache
def tiny() -> Path:
    """A lake of two lanes and four hours, everything computed once. Shared: read it, or copy it with `copy_tiny`."""
    place = Path(tempfile.mkdtemp(prefix="tickstate-tests-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    lake = make_lake(place / "lake")
    assert run(lake).exit_code == 0
    return lake


def copy_tiny(to: Path) -> Path:
    """The tiny lake and its output, to be changed."""
    shutil.copytree(tiny(), to)
    return to


def tree(root: Path, suffix: str = "") -> dict[str, bytes]:
    """The bytes of every file under a folder, but for locks and saved state: these are no output."""
    found = {str(p.relative_to(root)): p for p in sorted(root.rglob(f"*{suffix}")) if p.is_file()}
    return {name: p.read_bytes() for name, p in found.items() if not {"_state", "_locks"} & {*p.parts}}


def parquet(root: Path) -> dict[str, bytes]:
    """The bytes of every Parquet file under a folder that readers see."""
    return {name: data for name, data in tree(root, ".parquet").items() if not Path(name).name.startswith(".")}


def part(lake: Path, lane: tuple[str, str], hour: str) -> Path:
    """The output file of a partition."""
    return lake / "silver/orderbook" / _hour_folder(lane, hour) / "part-0.parquet"


def commit(lake: Path, lane: tuple[str, str], hour: str) -> Path:
    """The commit record of a partition."""
    return lake / "silver/_commits/orderbook" / f"{_hour_folder(lane, hour)}.json"


def bronze_folder(lake: Path, lane: tuple[str, str], hour: str) -> Path:
    """The folder of a lane's hour in bronze."""
    return lake / "bronze/orderbook" / _hour_folder(lane, hour)


def _hour_folder(lane: tuple[str, str], hour: str) -> str:
    ts = int(datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp()) * SECOND
    return folder((lane[0], lane[1]), ts)


def silver(lake: Path) -> list[dict[str, Any]]:
    """All rows of silver, file after file in the order of lane and hour."""
    paths = sorted((lake / "silver/orderbook").rglob("part-0.parquet"), key=_natural)
    return [r for p in paths for r in pq.read_table(p, partitioning=None).to_pylist()]


def _natural(path: Path) -> list[Any]:
    return [(v.isdigit(), int(v) if v.isdigit() else 0, v) for v in (p.partition("=")[2] for p in path.parts)]


def computed(summary: Any) -> list[tuple[str, str]]:
    """(lane, hour) of what a run computed."""
    return sorted((str(o).split()[1], str(o).split()[2]) for o in summary.computed)


def left_over(root: Path) -> list[str]:
    """Unfinished files."""
    return [str(p.relative_to(root)) for p in root.rglob(".tmp-*")]


def quarantine(lake: Path) -> list[dict[str, str]]:
    """All quarantine entries of a lake."""
    return [q for p in sorted((lake / "silver/_quarantine").rglob("*.json")) for q in json.loads(p.read_text())]


def features(*arguments: Any, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-c", "from tickstate.runners.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
