"""Saved state is a cache: whole or dropped, with a reason; warm, reloaded and cold starts give the same bits."""

from __future__ import annotations

import random
import re
import shutil

import bronze
import numpy as np
import pytest
from faults.delivery import FAR, SET, World, assert_clean, cycle, deliver, tree
from lakes import HOUR

import tickstate
from tickstate.features.base import BARS
from tickstate.features.engine import Engine
from tickstate.lake.names import Lane
from tickstate.lake.state import MAGIC, BadState, load_state, save_state, state_path
from tickstate.runners.run import run_single

ABOUT = {
    "position": 1_723_161_600_000_000,
    "hour": 478_656,
    "fed": 1_723_161_599_000_000,
    "seen": {"a/b.parquet": "0f"},
}
ARRAYS = {
    "tail capture_ts": np.arange(5, dtype=np.int64),
    "tail mid": np.array([[1.5, np.nan], [-0.0, np.inf]]),
    "carried ewma 0": np.array([(3, 1, 2.5)], [("last", "i8"), ("known", "i8"), ("mid", "f8")]),
    "none": np.empty(0, np.int8),
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "lane.state"
    save_state(path, ABOUT, ARRAYS)
    return path


def test_round_trip(saved):
    about, arrays = load_state(saved)
    assert about == ABOUT
    assert arrays.keys() == ARRAYS.keys()
    for name, want in ARRAYS.items():
        got = arrays[name]
        assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes()), name
        got[...] = want  # writable: kernels go on in it
    assert b"pickle" not in saved.read_bytes()
    assert saved.read_bytes().startswith(MAGIC)


def test_every_flipped_bit_is_found(saved):
    data, missed = saved.read_bytes(), []
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        saved.write_bytes(damaged)
        try:
            load_state(saved)
        except BadState:
            continue
        except Exception as error:
            missed.append(f"bit {bit}: {type(error).__name__}")
        else:
            missed.append(f"bit {bit}: loaded")
    assert not missed, f"{len(missed)} of {8 * len(data)} flips: {missed[:3]}"


def test_every_torn_file_is_found(saved):
    data = saved.read_bytes()
    for length in range(len(data)):
        saved.write_bytes(data[:length])
        with pytest.raises(BadState):
            load_state(saved)
    saved.unlink()
    with pytest.raises(BadState, match="none"):
        load_state(saved)


# ---- what it is worth


def everything():
    """The names of all registered features of silver, those that are off unless selected too."""
    entries = [e for e in tickstate.default_registry() if e.package == "tickstate" and e.feature.channel not in BARS]
    return tuple(dict.fromkeys(e.feature.name for e in entries))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("state"), hours=3, seconds=600, features=everything())


def count_rows(monkeypatch):
    """Rows pushed through any engine, counted."""
    pushed, real = [0], Engine.push

    def push(self, rows, *args, **kwargs):
        pushed[0] += rows.flag.shape[0]
        return real(self, rows, *args, **kwargs)

    monkeypatch.setattr(Engine, "push", push)
    return pushed


def test_warm_reloaded_and_cold_give_equal_bits_for_every_feature(world, monkeypatch):
    """Three watchers get the same deliveries: one lives on, one is restarted, one has its state taken away.

    After every cycle their lakes are equal, open hours too; in the end they are the clean run's.
    """
    assert {"ewma", "vpin", "ofi_beta"} <= set(world.features)
    pushed = count_rows(monkeypatch)
    lakes = {kind: world.place(kind) for kind in ("memory", "disk", "cold")}
    cost = dict.fromkeys(lakes, 0)
    clock, kept = [0], world.watcher(lakes["memory"], [0])
    kept._now = lambda: clock[0]
    for i in range(0, len(world.pieces), 5):
        for piece in world.pieces[i : i + 5]:
            clock[0] = max(clock[0], piece.time + 1)
            for lake in lakes.values():
                deliver(piece, lake / "bronze")
        if i + 5 >= len(world.pieces):
            clock[0] = FAR
        for kind, lake in lakes.items():
            before = pushed[0]
            if kind == "memory":
                cycle(kept)
            else:
                if kind == "cold":
                    shutil.rmtree(lake / "silver/_state", ignore_errors=True)
                watcher = world.watcher(lake, clock)
                cycle(watcher)
                watcher.close()
            cost[kind] += pushed[0] - before
        trees = {kind: tree(lake / "silver") for kind, lake in lakes.items()}
        assert trees["memory"] == trees["disk"], f"after piece {i}"
        assert trees["memory"] == trees["cold"], f"after piece {i}"
    kept.close()
    for lake in lakes.values():
        assert_clean(world, lake)
    assert cost["memory"] < 0.6 * cost["cold"], "the state was worth something"
    assert cost["disk"] < 0.6 * cost["cold"], "and the saved one too"


def half(world, name):
    """A lake that a watcher has seen up to the middle of the second hour, and its clock."""
    lake, clock = world.place(name), [0]
    for piece in world.pieces:
        if piece.time < FAR and piece.time < half_time(world):
            deliver(piece, lake / "bronze")
            clock[0] = piece.time + 1
    watcher = world.watcher(lake, clock)
    cycle(watcher)
    watcher.close()
    return lake


def half_time(world):
    return world.pieces[0].time // HOUR * HOUR + HOUR * 3 // 2


def files_of(lake):
    return sorted((lake / "silver/_state").rglob("*.state"))


def spoil(kind, path):
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) * 2 // 3])
    elif kind == "flipped":
        damaged = bytearray(data)
        damaged[-40] ^= 4
        path.write_bytes(damaged)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "version":
        path.write_bytes(data.replace(MAGIC, MAGIC[:-2] + b"9\n", 1))
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "definition":
        about, arrays = load_state(path)
        about["definition"]["versions"]["numba"] = "0.0.1"
        save_state(path, about, arrays)
    elif kind == "another lane's":
        about, arrays = load_state(path)
        about["definition"]["lane"] = "demo/C-D"
        save_state(path, about, arrays)


REASONS = {
    "truncated": "damaged", "flipped": "damaged", "empty": "version", "version": "version", "folder": "none",
    "definition": "other features", "another lane's": "other features",
}  # fmt: skip


@pytest.mark.parametrize("kind", REASONS)
def test_a_state_that_does_not_fit_is_dropped_with_a_reason(world, kind):
    lake = half(world, kind.replace(" ", "-"))
    paths = files_of(lake)
    assert len(paths) == 3, "one a lane"
    for path in paths:
        spoil(kind, path)
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
    watcher = world.watcher(lake, [FAR])
    cycle(watcher)
    watcher.close()
    dropped = [o.dropped_state for o in watcher.summary.computed if o.dropped_state]
    assert (watcher.summary.states_dropped, len(dropped)) == (3, 3)
    assert all(re.search(REASONS[kind], reason) for reason in dropped), dropped
    assert_clean(world, lake)


def test_a_state_that_fits_is_not_counted(world):
    lake = half(world, "fits")
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
    watcher = world.watcher(lake, [FAR])
    cycle(watcher)
    watcher.close()
    assert watcher.summary.states_dropped == 0
    assert_clean(world, lake)


def test_a_state_of_an_earlier_time_is_no_harm(world):
    """A copy of the state from before some hours were made: a backup played back."""
    lake = half(world, "earlier")
    kept = {path: path.read_bytes() for path in files_of(lake)}
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
    watcher = world.watcher(lake, [FAR])
    cycle(watcher)
    watcher.close()
    for path, data in kept.items():
        path.write_bytes(data)
    shutil.rmtree(lake / "silver/orderbook")
    watcher = world.watcher(lake, [FAR])
    cycle(watcher)
    watcher.close()
    assert_clean(world, lake)


def test_damage_to_an_open_partition_is_mended_not_copied(world):
    """The rows of an open hour are read back from its file: a file that is not what was committed is made anew."""
    lake, rng = half(world, "damaged"), random.Random(5)
    for piece in world.pieces:
        if "hour=0/" not in str(piece.relative):
            deliver(piece, lake / "bronze")
    want = {k: v for k, v in world.want.items() if not k.startswith("_commits") and "hour=0/" not in k}
    opened = [p for p in sorted((lake / "silver").rglob("part-0.parquet")) if "hour=23" in str(p)]
    assert len(opened) == 3
    problems = []
    for i in range(5):
        copy = world.root / f"damaged-{i}"
        shutil.copytree(lake, copy)
        for path in opened:
            target = copy / path.relative_to(lake)
            data = bytearray(target.read_bytes())
            at = rng.randrange(8, 8 * len(data) - 64)
            data[at // 8] ^= 1 << at % 8
            target.write_bytes(data)
        for _ in range(2):  # the first run may fail; none may fail for ever
            done = run_single(world.selection(copy / "bronze", copy / "silver"))
        problems += [f"{i}: {o}: {o.error}" for o in done.failed]
        got = bronze.parquet(copy / "silver")
        problems += [f"{i}: {k} differs" for k in want if got.get(k) != want[k] and not done.failed]
        shutil.rmtree(copy)
    assert not problems, "\n".join(problems)


def test_state_that_cannot_be_saved_costs_nothing(world, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tickstate.runners.executor.save_state", full)
    lake = half(world, "unsaved")
    assert not files_of(lake)
    for piece in world.pieces:
        deliver(piece, lake / "bronze")
    watcher = world.watcher(lake, [FAR])
    cycle(watcher)
    watcher.close()
    assert_clean(world, lake)


@pytest.mark.parametrize("fill", ["false", "true"])
def test_sampled_lanes_too(tmp_path, fill):
    """Their sampler is not saved: every restart begins at the lookback. Its last interval is in the next hour."""
    chosen = (*SET, "run.sample=60s", f"run.fill_gaps={fill}")
    world = World(tmp_path, hours=2, seconds=600, features=("ofi", "mid_price"), assign=chosen)
    lake, clock = world.place("sampled"), [0]
    watcher = world.watcher(lake, clock, grace=1500.0)
    seen = {}
    for i, piece in enumerate(world.pieces):
        deliver(piece, lake / "bronze")
        clock[0] = max(clock[0], piece.time + 1)
        cycle(watcher)
        for path, data in bronze.parquet(lake / "silver/orderbook").items():
            rows = bronze.pq.read_table(bronze.pa.BufferReader(data))
            before = seen.get(path)
            assert before is None or rows.slice(0, before.num_rows).equals(before), path
            seen[path] = rows
        if i % 5 == 4:
            watcher.close()
            watcher = world.watcher(lake, clock, grace=1500.0)
    clock[0] = FAR
    cycle(watcher)
    watcher.close()
    assert_clean(world, lake)


def test_one_file_a_lane(world):
    lake = half(world, "paths")
    assert files_of(lake) == sorted(
        state_path(lake / "silver", channel, Lane("demo", "A-B")) for channel in ("orderbook", "trades", "ticker")
    )
