"""What a plan costs where all is up to date: 10,000 partitions of 12 segments each."""

from __future__ import annotations

import time

import pytest
from many import write_many

from tickstate.lake import files
from tickstate.lake.segment import SETTLED
from tickstate.runners.run import plan_silver

LANES, HOURS, SEGMENTS = 10, 1_000, 12


@pytest.fixture(scope="module")
def selection(tmp_path_factory):
    """A lake of 10,000 partitions; nothing is synced to disk for it."""
    patch = pytest.MonkeyPatch()
    patch.setattr(files, "_fsync", lambda path: None)
    found = write_many(tmp_path_factory.mktemp("many"), LANES, HOURS, SEGMENTS)
    patch.undo()
    time.sleep(SETTLED / 1e9)
    return found


def test_plan_of_what_is_up_to_date(benchmark, note, selection):
    """The first plan reads every footer; later ones know them."""
    benchmark.group = "plan: 10,000 partitions of 12 segments, all up to date"
    began = time.perf_counter()
    plan = plan_silver(selection)
    first = time.perf_counter() - began
    assert (len(plan.partitions), len(plan.stale)) == (LANES * HOURS, 0)
    benchmark.pedantic(lambda: plan_silver(selection), rounds=3)
    note("seconds, the first time", first)
    note("seconds, from then on", benchmark.stats.stats.min, at_most=5.0)
