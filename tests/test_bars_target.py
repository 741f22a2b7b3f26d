"""Imbalance and run bars keep to their expected number of prints, whatever the tape: no explosion, no collapse."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tickstate.features.barengine import BarBuilder, find_kind

TRADES, T = 2_000_000, 1_000
DAY = 86_400_000_000
KINDS = [f"{w}_{k}_{T}" for w in ("tick", "volume", "dollar") for k in ("imbalance", "run")]


def signs(tape, rng):
    """+1 and -1: independent, sticky (autocorrelation 0.8), or with 55 % buys."""
    if tape == "persistent":
        turns = rng.random(TRADES) < 0.1  # autocorrelation 1 - 2 * 0.1
        return np.where(np.cumsum(turns) % 2, 1.0, -1.0)
    return np.where(rng.random(TRADES) < (0.55 if tape == "drifting" else 0.5), 1.0, -1.0)


@pytest.fixture(scope="module", params=["balanced", "persistent", "drifting"])
def tape(request):
    rng = np.random.default_rng(7)
    found = {"side": signs(request.param, rng), "capture_ts": 19_944 * DAY + np.arange(TRADES) * 40_000}
    found["amount"] = rng.lognormal(0.0, 1.5, TRADES)
    found["price"] = 100.0 + 0.01 * np.cumsum(rng.integers(-1, 2, TRADES))
    found["quote_volume"] = found["price"] * found["amount"]
    return found | {"base": found["amount"], "log_return": np.diff(np.log(found["price"]), prepend=np.nan)}


@pytest.mark.slow
@pytest.mark.parametrize("merged", [False, True], ids=["trades", "fills"])
@pytest.mark.parametrize("kind", KINDS)
def test_bars_keep_to_their_target(tape, kind, merged):
    """A mean of 300 to 3,000 prints a bar, at most 5 % of bars with fewer than 10."""
    stamps = np.arange(TRADES)
    if merged:  # three fills an order, by its first one's side
        stamps = stamps // 3
        tape = tape | {"side": tape["side"][stamps * 3]}
    builder = BarBuilder(find_kind("trades_bars", kind))
    ids = pa.nulls(TRADES, pa.string())
    bars = builder.push({**tape, "timestamp": stamps}, ids)
    new = np.concatenate(([True], np.diff(stamps) != 0))
    prints = np.add.reduceat(new, np.concatenate(([0], np.cumsum(bars["trade_count"].to_numpy())[:-1])))[:-1]
    assert 300 <= prints.mean() <= 3_000
    assert (prints < 10).mean() <= 0.05
