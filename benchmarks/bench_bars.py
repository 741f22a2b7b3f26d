"""Bars in memory, warm, on one core: rules alone, and with every column (CPU time). Beside others: bench_peers.py."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from benchmarks.market import make_tape
from tickstate.features.barengine import BarBuilder, find_kind

pytestmark = pytest.mark.benchmark(timer=time.process_time)

TRADES = 2_000_000
PLAIN = ("60s", "tick_1000", "volume_4000", "dollar_400000")
PRINTS = tuple(f"{w}_{k}_1000" for w in ("tick", "volume", "dollar") for k in ("imbalance", "run"))


@pytest.fixture(scope="module")
def tape():
    """A day of trades as arrays, each trade a print."""
    table = make_tape(TRADES)
    found = {name: table[name].to_numpy() for name in table.column_names if name != "capture_ts"}
    return found | {"capture_ts": table["capture_ts"].cast(pa.int64()).to_numpy(), "base": found["amount"]}


@pytest.mark.parametrize("name", PLAIN + PRINTS)
def test_rule(benchmark, note, tape, name):
    """What finds the ends of bars."""
    benchmark.group = "bars: rule alone"
    kind = find_kind("trades_bars", name)
    benchmark.pedantic(lambda: BarBuilder(kind)._cuts(tape), rounds=7, warmup_rounds=1)
    aim = 50e6 if name in PRINTS else None
    note("trades a second, median", TRADES / benchmark.stats.stats.median, at_least=aim)


@pytest.mark.parametrize("name", ("60s", "volume_4000", "volume_imbalance_1000"))
def test_rule_and_columns(benchmark, note, tape, name):
    """From arrays to a table of bars."""
    benchmark.group = "bars: rule and columns"
    kind, ids = find_kind("trades_bars", name), pa.nulls(TRADES, pa.string())
    benchmark.pedantic(lambda: BarBuilder(kind).push(tape, ids), rounds=7, warmup_rounds=1)
    note("trades a second, median", TRADES / benchmark.stats.stats.median)
