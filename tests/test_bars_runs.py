"""Days of bars against the hours of silver they are made from: plan, late data, thresholds, open days, crashes."""

from __future__ import annotations

import json
import os
import signal

import lakes
import pyarrow.parquet as pq
import pytest
import tapes
from faults.delivery import cycle
from lakes import HOUR, MIDNIGHT, SECOND

import tickstate
from tickstate.features import bars as rules
from tickstate.features.base import FeatureError
from tickstate.lake import files
from tickstate.runners.config import make_config
from tickstate.runners.plan import Selection
from tickstate.runners.run import plan_tiers
from tickstate.runners.watcher import Pace, Watcher

DAY = 24 * HOUR
KINDS = ("60s", "tick_7", "volume_imbalance_5")
FEATURES = ("quote_volume", "log_return", "mid_price")


def tape(day, hours=(1, 2), every=20, symbol_shift=0.0):
    """Trades of some hours of a day (from the one that MIDNIGHT begins)."""
    return [
        tapes.trade(MIDNIGHT + day * DAY + h * HOUR + i * every * SECOND, 1 + (i * 7 % 5) + symbol_shift,
                    "buy" if i * i % 7 < 4 else "sell", f"{day}-{h}-{i}", 100 + (i * 13 % 9) / 2)
        for h in hours for i in range(3600 // every)
    ]  # fmt: skip


def make(lake, days=3):
    rows = [row for day in range(days) for row in tape(day)]
    return tapes.write(lake, {("trades", tapes.SYMBOL): rows})


def run(lake, **options):
    chosen = {"runner": "single", "bars": list(KINDS), "features": list(FEATURES), **options}
    return tickstate.run(lake, **chosen)


def made(summary):
    return sorted((o.channel, o.hour // 24 - MIDNIGHT // DAY) for o in summary.computed if "/" in o.channel)


def record(lake, day, kind):
    time = lakes.hour_parts(MIDNIGHT + day * DAY)
    folder = f"exchange=demo/symbol=A-B/year={time['year']}/month={time['month']}"
    return json.loads((lake / "gold/_commits/trades_bars" / kind / folder / f"day={time['day']}.json").read_text())


@pytest.fixture
def lake(tmp_path):
    place = make(tmp_path / "lake")
    assert run(place).exit_code == 0
    return place


def test_a_second_run_does_nothing(lake):
    again = run(lake)
    assert (again.computed, again.up_to_date) == ([], 6 + 3 * len(KINDS))


def test_a_late_segment_touches_exactly_its_day(lake, tmp_path):
    late = [tapes.trade(MIDNIGHT + DAY + HOUR + 7 * SECOND, 3.0, trade_id="late")]
    tapes.write(lake, {("trades", tapes.SYMBOL): late}, name="late.parquet")
    plans = plan_tiers(selection(lake))
    assert {(p.hour // 24 - MIDNIGHT // DAY) for p in plans[1].stale} == {1}
    assert all("it is to be computed first" in r for p in plans[1].stale for r in p.reasons)
    assert made(run(lake)) == sorted((f"trades_bars/{k}", 1) for k in KINDS)
    fresh = tickstate.run(lake, silver=tmp_path / "s", gold=tmp_path / "g", bars=list(KINDS), features=list(FEATURES))
    assert fresh.exit_code == 0
    assert tapes.parts(tmp_path / "g") == tapes.parts(lake / "gold")


def selection(lake, **options):
    chosen = {"features": FEATURES, "bars": KINDS, **options}
    return Selection(lake / "bronze", lake / "silver", lake / "gold", **chosen)


def test_silver_that_comes_out_the_same_stops_there(lake):
    for path in (lake / "silver/_commits").rglob("*.json"):
        path.unlink()
    again = run(lake)
    assert len(again.computed) == 6
    assert made(again) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_alone_is_that_kind_among_others(lake, tmp_path, kind):
    run(lake, gold=tmp_path / "alone", bars=kind)
    assert tapes.parts(tmp_path / "alone") == {n: b for n, b in tapes.parts(lake / "gold").items() if f"/{kind}/" in n}


def test_kinds_that_are_there_are_kept_up_to_date(lake):
    tapes.write(lake, {("trades", tapes.SYMBOL): [tapes.trade(MIDNIGHT + HOUR + 5, trade_id="l")]}, name="late.parquet")
    found = run(lake, bars=None)
    assert {("trades_bars/tick_7", 0), ("trades_bars/volume_imbalance_5", 0)} <= set(made(found))
    assert not [c for c, day in made(found) if day and c.endswith(KINDS)]


def test_a_threshold_by_lane(lake):
    config = {"features": {"volume_bars": {"threshold": {"demo/A-B": 25}}}}
    run(lake, bars="volume", config=config)
    assert record(lake, 1, "volume")["features"]["volume_bars"]["params"]["threshold"] == 25.0
    found = run(lake, bars="volume", config={"features": {"volume_bars": {"threshold": {"demo/X-Y": 25}}}})
    assert {o.error.partition(";")[0] for o in found.failed} == {
        "[features.volume_bars]: bars 'volume' of demo/A-B have no threshold"
    }
    with pytest.raises(FeatureError, match="volume_auto"):
        run(lake, bars="volume")


def test_a_threshold_from_the_past_is_recorded(lake):
    """The median of the days before over a target; the first day has none."""
    heard = []
    observer = type("Hears", (), {n: lambda self, x: None for n in ("planned", "compiling", "finished")})()
    observer.noticed = heard.append
    found = run(lake, bars="tick_auto", config={"features": {"tick_bars": {"target": 30}}}, observer=observer)
    assert made(found) == [("trades_bars/tick_auto", 1), ("trades_bars/tick_auto", 2)]
    assert any("no complete day before" in text for text in heard)
    known = record(lake, 2, "tick_auto")
    assert list(known["settings"]["threshold_from"].values()) == [360.0, 360.0]
    assert known["features"]["tick_bars"]["params"]["threshold"] == 12.0
    assert made(run(lake, bars="tick_auto", config={"features": {"tick_bars": {"target": 30}}})) == []


def test_silver_that_lacks_a_column(tmp_path):
    lake = make(tmp_path / "lake", 1)
    given = run(lake, features="is_buy", bars="60s")
    assert "lacks" in given.failed[0].error
    assert "--feature log_return" in given.failed[0].error
    assert run(lake, features="is_buy", bars=None).failed == [], "the default kinds are left out, with a notice"


def test_a_kind_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    lake = make(tmp_path / "lake", 1)
    push = rules.TickBars.arguments

    def broken(self):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(rules.TickBars, "arguments", broken)
    found = run(lake)
    assert [(o.channel, "on purpose" in o.error) for o in found.failed] == [("trades_bars/tick_7", True)]
    assert len(made(found)) == 2
    monkeypatch.setattr(rules.TickBars, "arguments", push)
    assert made(run(lake)) == [("trades_bars/tick_7", 0)]


def test_silver_that_was_changed_by_hand(lake):
    path = next((lake / "silver/trades").rglob("part-0.parquet"))
    path.write_bytes(path.read_bytes() + b" ")
    found = run(lake, tier="gold")
    assert {o.error.partition(": ")[2] for o in found.failed} == {"its file is not the one that was recorded"}
    assert run(lake).failed == []


def test_sampled_books(tmp_path):
    """The stamp of a sample is its clock, and decides its bar."""
    rows = [tapes.touch(MIDNIGHT + i * SECOND + 5, 100 + i % 7) for i in range(300)]
    lake = tapes.write(tmp_path / "lake", {("orderbook", tapes.SYMBOL): rows})
    found = tickstate.run(lake, runner="single", bars="60s", config={"run": {"sample": "1s"}})
    assert found.failed == []
    bars = tickstate.scan(lake / "gold", "orderbook_bars/60s").to_table()
    assert bars["snapshot_count"].to_pylist() == [59, 60, 60, 60, 60, 1]


# ---- open days


class Live:
    """A watcher whose bronze comes hour by hour, its clock at the newest row."""

    def __init__(self, lake):
        self.lake, self.now = lake, [0]
        (lake / "bronze/trades").mkdir(parents=True)
        self.start()

    def start(self):
        chosen = selection(self.lake, config=make_config({}))
        self.watcher = Watcher(chosen, Pace(grace=60.0), now=lambda: self.now[0])

    def deliver(self, rows, name):
        tapes.write(self.lake, {("trades", tapes.SYMBOL): rows}, name=f"{name}.parquet")
        self.now[0] = rows[-1]["capture_ts"]
        cycle(self.watcher)


def table(lake, day, kind):
    time = lakes.hour_parts(MIDNIGHT + day * DAY)
    place = lake / "gold/trades_bars" / kind / "exchange=demo/symbol=A-B"
    return pq.ParquetFile(place / f"year={time['year']}/month={time['month']}/day={time['day']}/part-0.parquet").read()


@pytest.mark.parametrize("restarts", [False, True])
def test_an_open_day_is_a_prefix_of_the_closed_one(tmp_path, restarts):
    live, rows = Live(tmp_path / "live"), [*tape(0, (1, 2, 23)), *tape(1, (0, 3))]
    seen = []
    for i in range(0, len(rows), 60):
        live.deliver(rows[i : i + 60], f"s{i:04d}")
        today = rows[min(i + 59, len(rows) - 1)]["capture_ts"] // DAY - MIDNIGHT // DAY
        seen.append({k: table(live.lake, 0, k) for k in KINDS})
        assert (record(live.lake, 0, "60s")["cutoff"] is None) == (today == 1)
        if restarts:
            live.watcher.close()
            live.start()
    final = {k: table(live.lake, 0, k) for k in KINDS}
    for early in seen:
        for kind, bars in early.items():
            assert bars.equals(final[kind].slice(0, bars.num_rows))
    assert len({early["tick_7"].num_rows for early in seen}) > 5, "it grows while it is open"
    live.now[0] += 3 * DAY
    live.watcher.run(once=True)
    assert record(live.lake, 1, "60s")["cutoff"] is None
    fresh = tmp_path / "fresh"
    run(live.lake, silver=fresh / "silver", gold=fresh / "gold")
    assert tapes.parts(live.lake / "gold") == tapes.parts(fresh / "gold")
    live.watcher.close()


# ---- crashes


def steps_of(lake):
    """Every step of a run of gold alone."""
    found = []
    files.hook = found.append
    try:
        assert run(lake, tier="gold").failed == []
    finally:
        files.hook = None
    return found


@pytest.mark.slow
def test_killed_at_every_step(tmp_path):
    """Whatever step of making gold anew a process dies at, the next run gives the same bytes."""
    lake = make(tmp_path / "lake", 2)
    assert run(lake).exit_code == 0
    want = tapes.parts(lake / "gold")
    older = {p: p.read_bytes() for p in (lake / "gold/_commits").rglob("*.json")}

    def spoil():
        for path, data in older.items():
            path.write_bytes(data.replace(b'"version": 1', b'"version": 0'))

    spoil()
    steps = steps_of(lake)
    assert len(steps) > 40
    for point in range(len(steps)):
        spoil()
        child = os.fork()
        if not child:
            count = [0]

            def hook(name, count=count, point=point):
                count[0] += 1
                if count[0] > point:
                    os.kill(os.getpid(), signal.SIGKILL)

            files.hook = hook
            run(lake, tier="gold")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, steps[point]
        found = tapes.parts(lake / "gold")
        assert found == want, "readers see whole files"
        assert run(lake, tier="gold").failed == []
        assert tapes.parts(lake / "gold") == want
        assert not list((lake / "gold").rglob(f"{files.TEMPORARY}*"))
