"""What the benchmarks share: one busy hour, warm kernels, and targets, which are printed below the table of times.

Targets are recorded with each result and asserted only under ``TICKSTATE_BENCH_ASSERT=1``: on a shared machine a
number is a hint, on a quiet one it is a test.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from busy import ROWS, write_busy_hour

VERSIONS = ("numba", "numpy", "pyarrow", "polars", "duckdb", "finmlkit")
_LINES: list[str] = []
_LOAD = os.getloadavg()[0]

os.environ["POLARS_MAX_THREADS"] = "1"
"""Read when polars is imported: peers are compared on one thread each."""


def plain(value: float) -> str:
    """A number without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bronze with one hour of 200,000 rows, 20 levels."""
    return write_busy_hour(tmp_path_factory.mktemp("busy") / "bronze", ROWS)


@pytest.fixture
def note(benchmark) -> Callable[..., None]:
    """Record a figure: ``note("rows a second", 5e5, at_least=4e5)``."""

    def record(what: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        benchmark.extra_info[what] = value
        bound = ""
        if at_least is not None or at_most is not None:
            met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
            limit = f"at least {plain(at_least)}" if at_least is not None else f"at most {plain(at_most)}"
            bound = f" (target {limit}: {'met' if met else 'MISSED'})"
            benchmark.extra_info[f"{what}: target"] = limit
            benchmark.extra_info[f"{what}: met"] = bool(met)
        _LINES.append(f"{benchmark.name}: {what}: {value:,.6g}{bound}")
        if bound and os.environ.get("TICKSTATE_BENCH_ASSERT") == "1":
            assert met, _LINES[-1]

    return record


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """What the report says of the run beside the processor."""
    machine_info["cores"] = len(os.sched_getaffinity(0))
    machine_info["load"] = _LOAD
    machine_info["versions"] = {name: version(name) for name in VERSIONS if find_spec(name) is not None}


def pytest_terminal_summary(terminalreporter) -> None:
    """Print every figure, which pytest-benchmark keeps in its JSON only."""
    if _LINES:
        terminalreporter.section("figures")
        for line in _LINES:
            terminalreporter.write_line(line)
