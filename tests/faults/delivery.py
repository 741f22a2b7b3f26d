"""Bronze that arrives bit by bit: lakes re-cut to small segments, delivered by rename, under a clock that tests rule.

`World` is a bronze in whole, the pieces it is cut into, and the silver that one clean single run makes of it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import bronze as files
import lakes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tapes
from lakes import HOUR, MIDNIGHT, SECOND

from tickstate.runners.config import load_config
from tickstate.runners.run import run_single
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher

FAR = MIDNIGHT + 10_000 * HOUR
"""A time at which every hour here is closed."""
FIRST = MIDNIGHT // HOUR - 2
SET = ("vpin.bucket_volume=3", "vpin.min_buckets=2", "spread_rank.min_rows=3", "ofi_beta.min_cells=2")


@dataclass(frozen=True)
class Piece:
    """A small segment: its last time, its place below bronze, and where it is staged."""

    time: int
    relative: Path
    staged: Path


def cut(bronze, stage, seconds, channels=("orderbook", "trades", "ticker")):
    """All rows of a bronze as pieces of `seconds`, staged elsewhere, in the order of their last times."""
    pieces = []
    for channel in channels:
        for path in sorted((bronze / channel).rglob("*.parquet")):
            table = pq.ParquetFile(path).read()
            times = table["capture_ts"].cast(pa.int64()).to_numpy()
            cells = times // (seconds * SECOND)
            for cell in np.unique(cells):
                relative = path.parent.relative_to(bronze) / f"{path.stem}-{cell}.parquet"
                staged = stage / relative
                staged.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(table.filter(pa.array(cells == cell)), staged)
                pieces.append(Piece(int(times[cells == cell].max()), relative, staged))
    return sorted(pieces, key=lambda p: (p.time, p.relative))


def deliver(piece, bronze):
    """Copy beside, then rename into place, as a careful writer does."""
    target = bronze / piece.relative
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.tmp")
    shutil.copyfile(piece.staged, beside)
    os.replace(beside, target)


def rows_of(hours, gap=9.0, seed=3):
    """Rows of all channels over `hours` hours around midnight, dense enough for every feature, with holes in it."""
    rng = np.random.default_rng(seed)
    start, end = FIRST * HOUR, (FIRST + hours) * HOUR
    n = int(hours * 3600 / gap)
    book = lakes.random_book(rng, n, start=start + SECOND, gap=gap * 1.05, levels=4)
    tape = lakes.random_tape(rng, n, start=start + 2 * SECOND, gap=gap * 1.2)
    quotes = [
        tapes.quote(t["capture_ts"] + 1, t["price"], t["price"] + 0.01 * (i % 4), t["amount"], float(i % 7))
        for i, t in enumerate(tape[::2])
    ]
    hole = start + int(0.55 * HOUR), start + int(0.67 * HOUR)  # 432 s: longer than max_staleness
    kept = {
        channel: [r for r in found if r["capture_ts"] < end and not hole[0] <= r["capture_ts"] < hole[1]]
        for channel, found in (("orderbook", book), ("trades", tape), ("ticker", quotes))
    }
    return {(channel, tapes.SYMBOL): found for channel, found in kept.items()}


class World:
    """A bronze, its pieces, and the clean silver."""

    def __init__(self, root, hours=3, seconds=600, features=None, assign=SET, config=None, bronze=None, gap=9.0):
        self.root, self.features = root, features
        self.config = load_config(config, assign)
        if bronze is None:
            tapes.write(root / "source", rows_of(hours, gap))
        source = bronze or root / "source/bronze"
        self.pieces = cut(source, root / "stage", seconds)
        self.whole = root / "whole/bronze"
        for piece in self.pieces:
            deliver(piece, self.whole)
        self.clean = root / "clean"
        done = run_single(self.selection(self.whole, self.clean))
        assert done.exit_code == 0, [o.error for o in done.failed]
        self.want = tree(self.clean)

    def selection(self, bronze, silver, **chosen):
        return Selection(bronze, silver, **{"features": self.features, "config": self.config, **chosen})

    def place(self, name):
        """A fresh folder with an empty bronze."""
        lake = self.root / name
        (lake / "bronze").mkdir(parents=True)
        return lake

    def watcher(self, lake, clock, grace=120.0, observer=None, **pace):
        """A watcher over a lake; `clock`: a list of one time in us."""
        chosen = self.selection(lake / "bronze", lake / "silver")
        return Watcher(chosen, Pace(grace=grace, **pace), observer, now=lambda: clock[0])


def tree(silver):
    """Partitions and commit records: what every runner must agree on. State, locks and lists are its own affair."""
    names = ("_state", "_locks")
    return {k: v for k, v in files.tree(silver).items() if k.partition("/")[0] not in names}


def differences(got, want):
    """What is wrong with a tree, in words."""
    found = [f"missing: {k}" for k in want if k not in got] + [f"too much: {k}" for k in got if k not in want]
    return found + [f"differs: {k}" for k in want if k in got and got[k] != want[k]]


def assert_clean(world, lake):
    """The lake holds the bytes of the clean run."""
    found = differences(tree(lake / "silver"), world.want)
    assert not found, "\n".join(found)


def cycle(watcher, *, fails=False):
    """One cycle, in which nothing may fail."""
    done = watcher.cycle()
    if not fails:
        assert not watcher.summary.failed, [f"{o}: {o.error}" for o in watcher.summary.failed]
    return done


def partitions(silver, channel="*"):
    """All partitions that readers see."""
    return sorted(p for p in silver.glob(f"{channel}/exchange=*/**/part-0.parquet"))
