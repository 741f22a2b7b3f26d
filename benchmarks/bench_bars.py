"""Bars in memory, warm, on one core, beside finmlkit on the same tape in the same run (CPU time)."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest

from tickstate.features.barengine import BarBuilder, find_kind

pytestmark = pytest.mark.benchmark(timer=time.process_time)

TRADES = 2_000_000
DAY = 86_400_000_000
VOLUME = 4_000.0
PRINTS = [f"{w}_{k}_1000" for w in ("tick", "volume", "dollar") for k in ("imbalance", "run")]


@pytest.fixture(scope="module")
def tape():
    """A day of trades: lognormal sizes, sticky signs, each trade a print."""
    rng = np.random.default_rng(7)
    found = {"capture_ts": 19_944 * DAY + np.sort(rng.integers(0, DAY, TRADES)), "timestamp": np.arange(TRADES)}
    found["side"] = np.where(np.cumsum(rng.random(TRADES) < 0.1) % 2, 1.0, -1.0)
    found["price"] = 100.0 + 0.01 * np.cumsum(rng.integers(-1, 2, TRADES))
    found["amount"] = rng.lognormal(0.0, 1.5, TRADES)
    found["quote_volume"], found["base"] = found["price"] * found["amount"], found["amount"]
    return found | {"log_return": np.diff(np.log(found["price"]), prepend=np.nan)}


def ours(tape, name):
    """Rule and columns, from arrays to a table of bars."""
    kind, ids = find_kind("trades_bars", name), pa.nulls(TRADES, pa.string())
    return lambda: BarBuilder(kind).push(tape, ids)


def theirs(tape, name):
    """finmlkit's indexer, and open, high, low, close, volume, vwap, trade count and median size, with sides."""
    core = pytest.importorskip("finmlkit.bar.logic", reason="finmlkit is not installed: pip install finmlkit")
    base = pytest.importorskip("finmlkit.bar.base", reason="finmlkit is not installed: pip install finmlkit")
    times, side = tape["capture_ts"] * 1000, tape["side"].astype(np.int8)
    price, amount = tape["price"], tape["amount"]

    def run():
        if name == "60s":
            _, index = core._time_bar_indexer(times, 60.0)
        else:
            index = np.asarray(core._volume_bar_indexer(amount, VOLUME), np.int64)
        ohlcv = base.comp_bar_ohlcv(price, amount, index)
        return ohlcv, base.comp_bar_directional_features(price, amount, index, side)

    return run


def test_the_same_bars(tape):
    """Before any comparison of speed: the same number of bars, and the same volumes."""
    for name in ("60s", f"volume_{VOLUME:g}"):
        (_, _, _, _, volume, *_), _ = theirs(tape, name)()
        mine = ours(tape, name)()
        assert abs(mine.num_rows - len(volume)) <= 2
        assert np.isclose(np.median(mine["volume"].to_numpy()), np.median(volume), rtol=0.02)


@pytest.mark.parametrize("name", ["60s", f"volume_{VOLUME:g}"])
def test_beside_finmlkit(benchmark, note, tape, name):
    """Rule and columns of both, in turn."""
    benchmark.group = f"bars: {name}, rule and columns"
    mine, other = ours(tape, name), theirs(tape, name)
    other(), mine()
    spent: list[float] = []

    def both():
        mine()
        began = time.process_time()
        other()
        spent.append(time.process_time() - began)

    benchmark.pedantic(both, rounds=7)
    whole = benchmark.stats.stats.min
    note("trades a second", TRADES / (whole - min(spent)))
    note("times as fast as finmlkit", min(spent) / (whole - min(spent)), at_least=1.0)


@pytest.mark.parametrize("name", PRINTS)
def test_imbalance_and_run_rules(benchmark, note, tape, name):
    """The rule alone; its columns are those of every kind."""
    benchmark.group = f"bars: {name}"
    kind = find_kind("trades_bars", name)
    benchmark.pedantic(lambda: BarBuilder(kind)._cuts(tape), rounds=7, warmup_rounds=1)
    note("trades a second, rule", TRADES / benchmark.stats.stats.min, at_least=50e6)
    began, made = time.process_time(), ours(tape, name)
    made()
    note("trades a second, with columns", TRADES / (time.process_time() - began))
