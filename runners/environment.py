"""What the bytes depend on beside bronze and configuration: versions, sources, and what this machine computes.

A process that takes part in a run from another machine is compared with the one that planned the run, by name, so
that what differs can be said and mended.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("tickstate", "numba", "llvmlite", "numpy", "pyarrow", "msgspec", "xxhash")
"""What computes, encodes and records."""
PYTHON, SOURCE = "python", "source of tickstate"
NUMERICS = "numerics fingerprint"
PARTS = ("tickstate", *(f"tickstate.{name}" for name in ("features", "kernels", "lake", "runners")))
ABSENT = "not installed"
OTHER_BITS = "it computes or encodes otherwise: leave it out, or run on machines of one type"

COLUMNS = {
    "orderbook": ("log_return", "mlofi", "ret_5s", "ofi_ewma_5s"),
    "trades": ("log_return",),
}
"""Columns of logarithms, powers and sums of products: where a machine that computes otherwise would show it."""
ROWS, SEED = 4096, 23

Environment = dict[str, str]


def describe(plugins: Iterable[str] = ()) -> Environment:
    """Versions and sources of this process's environment; loads neither numba nor pyarrow.

    ``plugins``: distributions whose features take part.
    """
    found = {PYTHON: f"{sys.version_info[0]}.{sys.version_info[1]}", SOURCE: _source()}
    return found | {name: version_of(name) for name in (*PACKAGES, *plugins) if name not in (PYTHON, SOURCE, NUMERICS)}


@cache
def numerics() -> str:
    """A hash of what this machine computes of a fixed tape and encodes: other bytes anywhere, another hash.

    The kernels of ``COLUMNS`` on a seeded lane, and the table they give as Parquet with the settings of silver.
    """
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    from tickstate.features.checking_data import make_lane, run_lane
    from tickstate.lake.write import writer_options

    digest = hashlib.blake2b(digest_size=8)
    for graph in graphs():
        lane = make_lane(graph.channel, ROWS, SEED, gaps=0.02)
        values = run_lane(graph, lane)
        columns: dict[str, Any] = {name: pa.array(v, from_pandas=True) for name, v in values.items()}
        n = len(next(iter(columns.values())))
        columns |= {"capture_ts": pa.array(lane.times[-n:], pa.timestamp("us", tz="UTC")), "lane": ["a/B-C"] * n}
        table, sink = pa.table(columns), pa.BufferOutputStream()
        pq.write_table(table, sink, **writer_options(table.schema))
        digest.update(sink.getvalue())
    return digest.hexdigest()


@cache
def graphs() -> tuple[Any, ...]:
    """The graphs that ``numerics`` runs."""
    from tickstate.features.graph import build_graph

    return tuple(build_graph(channel, names) for channel, names in COLUMNS.items())


def differences(got: Environment, expected: Environment) -> list[str]:
    """What an environment has otherwise than expected, in words; empty where it may take part."""
    found = []
    for name, wanted in expected.items():
        have = got.get(name, ABSENT)
        if have != wanted:
            found.append(f"{name} is {have}, expected {wanted}")
    return found


@cache
def _source() -> str:
    """A hash of tickstate's own files, wherever they are installed: a checkout may change and keep its version."""
    from tickstate.kernels._jit import source_digest

    folders = [Path(import_module(name).__file__ or "").parent for name in PARTS]
    return source_digest(*(path for folder in folders for path in sorted(folder.glob("*.py"))))


@cache
def version_of(name: str) -> str:
    """The version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ABSENT
