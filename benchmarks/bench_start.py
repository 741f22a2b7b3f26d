"""What a user waits for before any row is computed: help, a run with nothing to do, the first run ever."""

from __future__ import annotations

import statistics
import sys

import pytest

from benchmarks.children import FEATURES, run_child


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo lake, up to date."""
    lake = tmp_path_factory.mktemp("start") / "demo-lake"
    run_child(FEATURES, "run", "--runner", "single", "--demo", "--lake", lake)
    return lake


def test_help(benchmark, note):
    """``features --help`` over ``python -c pass``, in turn."""
    over: list[tuple[float, float]] = []

    def both():
        help_, bare = run_child(FEATURES, "--help"), run_child(sys.executable, "-c", "pass")
        over.append((help_.cpu - bare.cpu, help_.wall - bare.wall))

    benchmark.group = "start: features --help and python -c pass"
    benchmark.pedantic(both, rounds=15, warmup_rounds=1)
    note("CPU seconds over bare python, median", statistics.median(cpu for cpu, _ in over[1:]), at_most=0.15)
    note("wall seconds over bare python, median", statistics.median(wall for _, wall in over[1:]))


def test_nothing_to_do(benchmark, note, demo):
    """A second run over a lake that is up to date."""
    benchmark.group = "start: a run with nothing to do"
    cpu: list[float] = []
    benchmark.pedantic(lambda: cpu.append(run_child(FEATURES, "run", "--lake", demo).cpu), rounds=7, warmup_rounds=1)
    note("wall seconds, median", benchmark.stats.stats.median, at_most=1.0)
    note("CPU seconds, median", statistics.median(cpu[1:]))


def test_first_run(benchmark, note, tmp_path):
    """The first run ever: demo lake made, every kernel compiled, every partition computed."""
    command = (FEATURES, "run", "--runner", "batch", "--demo", "--lake", tmp_path / "demo-lake")
    cache = {"TICKSTATE_CACHE_DIR": str(tmp_path / "kernels")}
    benchmark.group = "start: the first run ever"
    cost = benchmark.pedantic(run_child, args=command, kwargs=cache, rounds=1)
    note("wall seconds", benchmark.stats.stats.median, at_most=60.0)
    note("CPU seconds, of all processes", cost.cpu)
