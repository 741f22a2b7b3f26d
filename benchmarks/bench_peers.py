"""Every pair of the table of peers: a tool's form of a family of columns, and tickstate's on the same rows, in turn.

One thread each, in memory, warm. Times are CPU times, and a ratio is the median over rounds of the peer's time over
that of tickstate in the same round, so that what else the machine does falls on both.
"""

from __future__ import annotations

import importlib
import statistics
import time

import pyarrow as pa
import pytest

from benchmarks.agreement import differences
from benchmarks.market import make_market, small_market
from benchmarks.peers import PAIRS

pytestmark = pytest.mark.benchmark(timer=time.process_time)
ROWS, TRADES = 200_000, 1_000_000
ENOUGH = 0.1
"""Seconds that tickstate computes in a round, over and over where rows are few."""


@pytest.fixture(scope="module")
def market():
    polars = importlib.import_module("polars")
    assert polars.thread_pool_size() == 1, "polars was imported before benchmarks/conftest.py set POLARS_MAX_THREADS"
    threads = pa.cpu_count()
    pa.set_cpu_count(1)
    yield make_market(ROWS, TRADES)
    pa.set_cpu_count(threads)


@pytest.fixture(scope="module")
def small():
    return small_market()


def seconds_of(run) -> float:
    """CPU seconds of a call."""
    began, calls = time.process_time(), 0
    while calls == 0 or time.process_time() - began < ENOUGH:
        run()
        calls += 1
    return (time.process_time() - began) / calls


@pytest.mark.parametrize("pair", PAIRS)
def test_beside(benchmark, note, market, small, pair):
    family, peer = PAIRS[pair]
    assert differences(family, peer, small) == []
    given = market.first(peer.share)
    rows, ours, theirs = family.rows(given), family.ours(given), peer.prepare(given)
    mine: list[float] = []

    def before():
        mine.append(seconds_of(ours))

    benchmark.group = f"peers: {family.name}"
    benchmark.pedantic(theirs, setup=before, rounds=peer.rounds, warmup_rounds=0 if "Python" in peer.tool else 1)
    times = benchmark.stats.stats.data
    mine = mine[-len(times) :]
    benchmark.extra_info.update(
        family=family.name, tool=peer.tool, of=family.of, columns=len(family.columns), rows=rows
    )
    benchmark.extra_info.update(differs=peer.differs, omits=len(peer.omits))
    note("ns a row", 1e9 * statistics.median(times) / rows)
    note("ns a row of tickstate", 1e9 * statistics.median(mine) / rows)
    ratios = [theirs / ours for theirs, ours in zip(times, mine, strict=True)]
    note("times as fast, median of pairs", statistics.median(ratios), at_least=peer.aim)
