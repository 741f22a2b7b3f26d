"""Days of bars against the hours of silver they are made from: plan, late data, thresholds, open days, crashes."""

from __future__ import annotations

import json
import os
import shutil
import signal

import lakes
import pyarrow.parquet as pq
import pytest
import tapes
import test_bars
from faults.delivery import cycle
from lakes import HOUR, MIDNIGHT, SECOND
from plugins import Point

import tickstate
from tickstate.features import bars as rules
from tickstate.features.barengine import DAY_END
from tickstate.features.base import FeatureError
from tickstate.lake import files
from tickstate.lake.errors import LakeError
from tickstate.runners import bars as runners_of_bars
from tickstate.runners.config import make_config
from tickstate.runners.run import plan_tiers
from tickstate.runners.selection import Selection
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


@pytest.mark.parametrize("kind", ["tick_imbalance_3", "volume_run_2", "volume_4", "60s"])
def test_hours_and_batches_do_not_show(tmp_path, kind, monkeypatch):
    """An order whose fills lie on both sides of an hour is one print, and so is one that a batch of rows divides."""
    rows, stamps = [], MIDNIGHT // 1000
    for i in range(60):  # fills of up to five an order, 02:00 in the middle of one
        order = i // 5 if i % 3 else i // 3
        t = MIDNIGHT + 2 * HOUR + (i - 32) * SECOND // 4
        side = ("buy", "sell", None)[order % 3]
        rows.append(tapes.trade(t, 1 + i % 4 / 4, side, str(i), 100 + i % 7, timestamp=stamps + order))
    rows[40]["price"] = None  # a bad one keeps its row in silver, and is in no bar
    lake = tapes.write(tmp_path / "lake", {("trades", tapes.SYMBOL): rows})
    monkeypatch.setattr(runners_of_bars, "BATCH_ROWS", 7)
    run(lake, bars=kind)
    held = [
        {**r, "side": {"buy": 1.0, "sell": -1.0}.get(r["side"]), "quote_volume": r["price"] * r["amount"]}
        for r in rows if r["price"] is not None
    ]  # fmt: skip
    want = test_bars.naive(held, kind, end=MIDNIGHT + DAY)
    bars = table(lake, 0, kind).to_pylist()
    assert [(b["first_trade_id"], b["last_trade_id"], b["bar_reason"]) for b in bars] == [
        (w[0][0]["trade_id"], w[0][-1]["trade_id"], w[1]) for w in want
    ]
    assert [round(b["known_at"].timestamp() * SECOND) for b in bars] == [w[3] for w in want]
    assert [b["threshold"] for b in bars] == pytest.approx([w[2] for w in want], rel=1e-12)
    assert len(bars) > 2 or kind == "60s"
    before = tapes.parts(lake / "gold")
    monkeypatch.undo()
    run(lake, gold=tmp_path / "whole", bars=kind)
    assert tapes.parts(tmp_path / "whole") == before


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
    found = run(lake, bars="tick_auto", config={"features": {"tick_bars": {"target": 30}}}, observer=hears(heard))
    assert made(found) == [("trades_bars/tick_auto", 1), ("trades_bars/tick_auto", 2)]
    assert any("no complete day before" in text for text in heard)
    known = record(lake, 2, "tick_auto")
    assert list(known["settings"]["threshold_from"].values()) == [360.0, 360.0]
    assert known["features"]["tick_bars"]["params"]["threshold"] == 12.0
    assert made(run(lake, bars="tick_auto", config={"features": {"tick_bars": {"target": 30}}})) == []


PAST = {"bars": ["tick_auto", "tick_7"], "config": {"features": {"tick_bars": {"target": 30}}}}


@pytest.fixture(scope="module")
def ten_days(tmp_path_factory):
    """Nine days of 20, 30, 60, ... trades, and a tenth; days 4 and 5 without any."""
    place = tmp_path_factory.mktemp("ten") / "lake"
    rows = [row for day in (0, 1, 2, 3, 6, 7, 8, 9, 10) for row in tape(day, (1,), every=180 // (day + 1))]
    tapes.write(place, {("trades", tapes.SYMBOL): rows})
    assert run(place, **PAST).exit_code == 0
    return place


def test_the_past_is_seven_days(ten_days):
    """With trades, each complete; their median over the target, as a whole number."""
    known = record(ten_days, 10, "tick_auto")
    past = known["settings"]["threshold_from"]
    counts = {d: len(tape(d, (1,), every=180 // (d + 1))) for d in (2, 3, 6, 7, 8, 9)}
    assert list(past.values()) == [float(counts.get(d, len(tape(1, (1,), every=90)))) for d in (1, 2, 3, 6, 7, 8, 9)]
    threshold = round(sorted(past.values())[3] / 30)
    assert known["features"]["tick_bars"]["params"]["threshold"] == threshold
    bars = table(ten_days, 10, "tick_auto")
    assert set(bars["threshold"].to_pylist()) == {float(threshold)}
    assert bars["trade_count"].to_pylist()[:-1] == [threshold] * (bars.num_rows - 1)


def test_a_late_trade_touches_the_thresholds_of_seven_days(ten_days, tmp_path):
    """A plan says so before silver is made; a run makes what it said, and ends where a fresh one does."""
    lake = tmp_path / "lake"
    shutil.copytree(ten_days, lake)
    late = [tapes.trade(MIDNIGHT + DAY + HOUR + 7 * SECOND, 3.0, trade_id="late")]
    tapes.write(lake, {("trades", tapes.SYMBOL): late}, name="late.parquet")
    want = [("trades_bars/tick_7", 1), *(("trades_bars/tick_auto", d) for d in (1, 2, 3, 6, 7, 8, 9, 10))]
    chosen = selection(lake, bars=tuple(PAST["bars"]), config=make_config(PAST["config"]))
    assert sorted((p.channel, p.hour // 24 - MIDNIGHT // DAY) for p in plan_tiers(chosen)[1].stale) == want
    assert made(run(lake, **PAST)) == want
    assert len(record(lake, 10, "tick_auto")["settings"]["threshold_from"]) == 7
    assert run(lake, silver=tmp_path / "s", gold=tmp_path / "g", **PAST).exit_code == 0
    assert tapes.parts(tmp_path / "g") == tapes.parts(lake / "gold")
    older = [tapes.trade(MIDNIGHT + HOUR + 7 * SECOND, 3.0, trade_id="older")]
    tapes.write(lake, {("trades", tapes.SYMBOL): older}, name="late.parquet")
    assert ("trades_bars/tick_auto", 10) not in made(run(lake, **PAST)), "the eighth day before it"


def test_a_past_that_is_in_doubt_holds_what_is_derived_from_it(ten_days, tmp_path):
    """Silver of a day before that nobody can vouch for; days that do not ask for it are made."""
    lake = tmp_path / "lake"
    shutil.copytree(ten_days, lake)
    shutil.rmtree(lake / "gold")
    path = next(p for p in (lake / "silver/trades").rglob("part-0.parquet") if "day=10/" in str(p))
    path.write_bytes(path.read_bytes() + b" ")
    found = run(lake, tier="gold", **PAST)
    failed = sorted((o.channel, o.hour // 24 - MIDNIGHT // DAY) for o in found.failed)
    assert failed == [("trades_bars/tick_7", 1), *(("trades_bars/tick_auto", d) for d in (1, 2, 3, 6, 7, 8, 9, 10))]
    assert all("not the one that was recorded" in o.error for o in found.failed)


def test_a_past_that_is_open_is_said(tmp_path):
    """Gold alone beside the silver of a watcher: the day has no threshold yet."""
    live = Live(tmp_path / "live")
    live.deliver(tape(0, (1, 23)), "a")
    live.deliver(tape(1, (0,))[:3], "b")
    live.watcher.close()
    for path in (live.lake / "silver/_commits/trades").rglob("hour=23.json"):
        data = json.loads(path.read_text())
        path.write_text(json.dumps(data | {"cutoff": MIDNIGHT + DAY - SECOND}))
    heard = []
    run(live.lake, tier="gold", bars="tick_auto", observer=hears(heard))
    assert [text for text in heard if "yet: a day before it is still open" in text]


def hears(heard):
    """An observer of what is noticed."""
    observer = type("Hears", (), {n: lambda self, x: None for n in ("planned", "compiling", "finished")})()
    observer.noticed = heard.append
    return observer


def test_a_part_of_a_day_is_said(tmp_path):
    """Hours that are selected in the middle of a day: bars of these, named so; the whole day once they are there."""
    lake, heard = make(tmp_path / "lake", 1), []
    start, end = (tapes.hour_text((MIDNIGHT + h * HOUR) // HOUR) for h in (1, 2))
    assert made(run(lake, start=start, end=end, observer=hears(heard))) == sorted(
        (f"trades_bars/{k}", 0) for k in KINDS
    )
    assert len([text for text in heard if "no silver yet of 1 of its hours in bronze" in text]) == 1
    heard.clear()
    assert made(run(lake, observer=hears(heard))) == sorted((f"trades_bars/{k}", 0) for k in KINDS)
    assert not [text for text in heard if "no silver yet" in text]
    assert run(lake, silver=tmp_path / "s", gold=tmp_path / "g").exit_code == 0
    assert tapes.parts(tmp_path / "g") == tapes.parts(lake / "gold")


def test_silver_that_lacks_a_column(tmp_path):
    lake = make(tmp_path / "lake", 1)
    given = run(lake, features="is_buy", bars="60s")
    assert "lacks" in given.failed[0].error
    assert "log_return, quote_volume" in given.failed[0].error
    assert "--feature bars" in given.failed[0].error
    heard = []
    observer = type("Hears", (), {n: lambda self, x: None for n in ("planned", "compiling", "finished")})()
    observer.noticed = heard.append
    assert run(lake, features="is_buy", bars=None, observer=observer).failed == []
    assert [text.partition(":")[0] for text in heard] == ["trades_bars are left out"], "the default kinds, said once"
    assert run(lake, features="bars", bars=None).failed == []
    assert len(list((lake / "gold/trades_bars").iterdir())) == 4


def test_a_rule_is_selected_like_a_feature(tmp_path, plugins):
    """On a fresh lake it alone, from the silver that it needs; beside --bars with them."""
    rule = type("Moves", (rules.VolumeBars,), {
        "__doc__": "A kind of bars of a package.", "name": "moves", "prefix": "moves", "total": "",
        "params": {"threshold": rules.Threshold(30.0, "lots", "lots")},
    })  # fmt: skip
    plugins(Point("moves", rule, "their-package"))
    lake = make(tmp_path / "lake", 2)
    assert made(run(lake, features="moves", bars=None)) == [("trades_bars/moves", 0), ("trades_bars/moves", 1)]
    path = next((lake / "silver/trades").rglob("part-0.parquet"))
    assert {"log_return", "quote_volume"} <= set(pq.read_schema(path).names)
    assert "is_buy" not in pq.read_schema(path).names
    assert made(run(lake, features="moves", bars=None)) == []
    assert run(lake, bars="moves_30").exit_code == 0
    same, other = ([p.read_bytes() for p in sorted((lake / "gold/trades_bars" / k).rglob("*.parquet"))] for k in
                   ("moves", "moves_30"))  # fmt: skip
    assert same == other
    assert len(made(run(lake, features="moves", bars="tick_9", start="2024-08-09T00"))) == 2, "tick_9 alone is new"
    with pytest.raises(LakeError, match="moves: bars are gold; give --gold DIR"):
        tickstate.run(bronze=lake / "bronze", silver=lake / "silver", features="moves", runner="single")


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


def test_a_day_that_a_batch_run_closed_too_early(tmp_path):
    """It stays closed, alone among the kinds, while its hours do; with an hour that is open it is open again."""
    live, rows = Live(tmp_path / "live"), tape(0, (1, 2, 23))
    live.deliver(rows[:90], "a")
    assert run(live.lake, bars="60s").exit_code == 0
    assert [record(live.lake, 0, k)["cutoff"] is None for k in KINDS] == [True, False, False]
    live.deliver(rows[90:150], "b")  # of the same hour
    ends = {k: record(live.lake, 0, k)["cutoff"] for k in KINDS}
    assert ends == {"60s": None, "tick_7": MIDNIGHT + 2 * HOUR, "volume_imbalance_5": MIDNIGHT + 2 * HOUR}
    assert DAY_END not in table(live.lake, 0, "tick_7")["bar_reason"].to_pylist()
    live.deliver(rows[150:200], "c")  # into the next one
    assert {record(live.lake, 0, k)["cutoff"] for k in KINDS} == {rows[199]["capture_ts"]}
    last = table(live.lake, 0, "60s").slice(table(live.lake, 0, "60s").num_rows - 1)
    assert last["bar_end"].to_pylist()[0].timestamp() * SECOND <= rows[199]["capture_ts"]
    live.deliver(rows[200:], "d")
    live.now[0] += 3 * DAY
    live.watcher.run(once=True)
    live.watcher.close()
    assert {record(live.lake, 0, k)["cutoff"] for k in KINDS} == {None}
    assert run(live.lake, silver=tmp_path / "s", gold=tmp_path / "g").exit_code == 0
    assert tapes.parts(live.lake / "gold") == tapes.parts(tmp_path / "g")


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
