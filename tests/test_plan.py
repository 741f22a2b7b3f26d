"""Work is what is missing or stale: what each change makes a run do again, and what the plan says of it."""

from __future__ import annotations

import json
import os
import shutil
import time

import bronze
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, BETA, HOURS, SECOND, START

from tickstate.features.registry import default_registry
from tickstate.lake import files

A, B = "alpha/BTC-USDT", "beta/ETH-USDT"
EVERY = sorted((lane, hour) for lane in (A, B) for hour in HOURS)


@pytest.fixture
def lake(tmp_path):
    return bronze.copy_tiny(tmp_path / "lake")


def planned(lake, **chosen):
    """(lane, hour) -> reasons of what is stale, by `features plan`'s own function."""
    from tickstate.runners.config import make_config
    from tickstate.runners.plan import make_plan
    from tickstate.runners.selection import Selection

    config = make_config(chosen.pop("config", {}))
    plan = make_plan(Selection(lake / "bronze", lake / "silver", config=config, **chosen))
    return {(str(p.lane), str(p).split()[2]): "; ".join(p.reasons) for p in plan.stale}


def again(lake, **chosen):
    """Run; returns what was computed, having checked that the plan said the same."""
    stale = planned(lake, **{k: v for k, v in chosen.items() if k in ("features", "config")})
    assert all(stale.values()), "a reason for each"
    summary = bronze.run(lake, **chosen)
    assert summary.failed == []
    found = bronze.computed(summary)
    assert found == sorted(stale), "the plan said what was done"
    assert summary.up_to_date == 8 - len(found)
    return found, stale


def test_a_second_run_does_nothing(lake):
    def times():
        files = (p for p in (lake / "silver").rglob("*") if p.is_file())
        return {p: p.stat().st_mtime_ns for p in files if p.name != "digests.msgpack"}  # a cache of bronze

    before = times()
    assert again(lake) == ([], {})
    assert before == times()


def test_a_fresh_target_is_all_to_do(lake):
    shutil.rmtree(lake / "silver")
    stale = planned(lake)
    assert sorted(stale) == EVERY
    assert set(stale.values()) == {"no output yet"}


def test_one_output_deleted(lake):
    before = bronze.tree(lake / "silver")
    bronze.part(lake, ALPHA, HOURS[1]).unlink()
    found, stale = again(lake)
    assert found == [(A, HOURS[1])]
    assert stale[A, HOURS[1]] == "output missing"
    assert bronze.tree(lake / "silver") == before


def test_one_output_cut_short(lake):
    before = bronze.tree(lake / "silver")
    path = bronze.part(lake, ALPHA, HOURS[1])
    path.write_bytes(path.read_bytes()[:-9])
    found, stale = again(lake)
    assert found == [(A, HOURS[1])]
    assert "bytes" in stale[A, HOURS[1]]
    assert bronze.tree(lake / "silver") == before


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"format": "x"}', b'{"format": 1}']
)
def test_a_record_missing_or_corrupt(lake, content):
    before = bronze.tree(lake / "silver")
    path = bronze.commit(lake, BETA, HOURS[2])
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    found, stale = again(lake)
    assert found == [(B, HOURS[2])]
    assert stale[B, HOURS[2]] == "no commit record"
    assert bronze.tree(lake / "silver") == before


def test_a_record_of_another_format(lake):
    path = bronze.commit(lake, BETA, HOURS[2])
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"format": record["format"] + 1}))
    found, stale = again(lake)
    assert found == [(B, HOURS[2])]
    assert "format" in stale[B, HOURS[2]]


def late_segment(lake, hour, name="late.parquet"):
    ts = START + HOURS.index(hour) * bronze.HOUR + 1800 * SECOND
    return bronze.write(lake / "bronze", bronze.table([bronze.row(ts + i, 480 + i) for i in range(3)]), name)


@pytest.mark.parametrize("index", range(4))
def test_a_late_segment(lake, index):
    """The hour itself and the next, whose lookback reaches into it; not the one after, not the other lane."""
    late_segment(lake, HOURS[index])
    found, stale = again(lake)
    assert found == [(A, h) for h in HOURS[index : index + 2]]
    assert stale[A, HOURS[index]] == f"bronze orderbook {HOURS[index]} changed"
    for hour in HOURS[index + 1 : index + 2]:
        assert stale[A, hour] == f"bronze orderbook {HOURS[index]} (lookback) changed"


def test_late_rows_give_what_a_run_over_all_gives(lake, tmp_path):
    late_segment(lake, HOURS[1])
    again(lake)
    fresh = tmp_path / "fresh"
    shutil.copytree(lake / "bronze", fresh / "bronze")
    bronze.run(fresh)
    assert bronze.tree(fresh / "silver") == bronze.tree(lake / "silver")


def test_a_segment_gone(lake):
    before = bronze.tree(lake / "silver")
    path = late_segment(lake, HOURS[2])
    again(lake)
    path.unlink()
    assert again(lake)[0] == [(A, h) for h in HOURS[2:4]]
    assert bronze.tree(lake / "silver") == before


def test_an_hour_of_bronze_gone(lake):
    """Its output stays, as nothing says that it is wrong; the next hour lost its lookback."""
    shutil.rmtree(bronze.bronze_folder(lake, ALPHA, HOURS[1]))
    stale = planned(lake)
    assert sorted(stale) == [(A, HOURS[2])]
    assert stale[A, HOURS[2]] == f"bronze orderbook {HOURS[1]} (lookback) is gone or no longer read"


def test_a_new_hour_before_the_first(lake):
    bronze.write(lake / "bronze", bronze.table([bronze.row(START - SECOND, 480)]))
    stale = planned(lake)
    assert sorted(stale) == [(A, "2024-03-01T21"), (A, HOURS[0])]
    assert stale[A, HOURS[0]] == "bronze orderbook 2024-03-01T21 (lookback) is new"


def test_a_segment_renamed(lake):
    """Its path decides ties between rows, so its name is part of what went in."""
    path = next(bronze.bronze_folder(lake, ALPHA, HOURS[0]).glob("*.parquet"))
    path.rename(path.with_name("z.parquet"))
    assert sorted(planned(lake)) == [(A, HOURS[0]), (A, HOURS[1])]


def test_a_segment_of_the_same_size_and_other_values(lake):
    """A digest is over the footer: offsets, sizes, statistics. Another row count or range shows."""
    path = late_segment(lake, HOURS[0])
    again(lake)
    found = pq.read_table(path, partitioning=None)
    pq.write_table(found.slice(0, 2), path)
    assert sorted(planned(lake)) == [(A, HOURS[0]), (A, HOURS[1])]


def test_times_of_files_do_not_matter(lake, tmp_path):
    for path in lake.rglob("*"):
        os.utime(path, (1, 1) if path.suffix == ".parquet" else (time.time() + 9e5,) * 2)
    assert again(lake) == ([], {})
    copied = tmp_path / "copied"
    shutil.copytree(lake, copied, copy_function=shutil.copyfile)
    assert again(copied) == ([], {})


def test_an_untouched_rewrite_of_a_segment_is_no_change(lake):
    for path in bronze.bronze_folder(lake, ALPHA, HOURS[0]).glob("*.parquet"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert again(lake) == ([], {})


def test_a_parameter(lake):
    """Only features that have it; back to the old value gives the old bytes."""
    before = bronze.tree(lake / "silver")
    config = {"features": {"smart_depth": {"decay_bps": 3.0}}}
    found, stale = again(lake, config=config)
    assert found == EVERY
    assert set(stale.values()) == {"feature smart_depth has other parameters"}
    assert bronze.tree(lake / "silver") != before
    assert again(lake, config=config) == ([], {})
    again(lake)
    assert bronze.tree(lake / "silver") == before


def test_a_parameter_of_one_lane(lake):
    config = {"features": {"smart_depth": {"decay_bps": {B: 3.0}}}}
    assert again(lake, config=config)[0] == [(B, h) for h in HOURS]


def test_a_parameter_spelled_otherwise_is_no_change(lake):
    assert again(lake, config={"features": {"smart_depth": {"decay_bps": 2}}}) == ([], {})
    assert again(lake, config={"features": {"smart_depth": {"decay_bps": {"other/lane": 3.0}}}}) == ([], {})
    assert again(lake, config={"run": {"max_staleness": 300}}) == ([], {})


def test_a_parameter_of_a_feature_that_is_not_computed(tmp_path):
    lake = bronze.make_lake(tmp_path, hours=1)
    bronze.run(lake, features=("spread",))
    config = {"features": {"smart_depth": {"decay_bps": 3.0}}}
    assert planned(lake, features=("spread",), config=config) == {}


@pytest.mark.parametrize(("key", "value"), [("max_staleness", 20.0), ("depth", 3)])
def test_a_setting_of_the_run(lake, key, value):
    before = bronze.tree(lake / "silver")
    found, stale = again(lake, config={"run": {key: value}})
    assert found == EVERY
    assert all(f"setting {key} was" in reason and f"is {value}" in reason for reason in stale.values())
    assert bronze.parquet(lake / "silver") != {k: v for k, v in before.items() if k.endswith(".parquet")}
    again(lake)
    assert bronze.tree(lake / "silver") == before


def test_a_longer_lookback_brings_new_inputs(lake, tmp_path):
    """mid_accel looks two steps back: with max_staleness of an hour, two hours."""
    shutil.rmtree(lake / "silver")
    inputs = []
    for staleness in (300.0, 3600.0):
        bronze.run(lake, features=("mid_accel",), config={"run": {"max_staleness": staleness}})
        record = json.loads(bronze.commit(lake, ALPHA, HOURS[3]).read_text())
        inputs.append(sorted(record["inputs"]["orderbook"]))
    assert inputs == [list(HOURS[2:]), list(HOURS[1:])]


def test_a_version_of_a_feature(lake, monkeypatch):
    entry = default_registry().of_channel("orderbook")["book_vwap"]
    monkeypatch.setattr(entry.feature, "version", entry.feature.version + 1)
    found, stale = again(lake)
    assert found == EVERY
    assert set(stale.values()) == {f"feature book_vwap was version {entry.feature.version - 1}, "
                                   f"is {entry.feature.version}"}  # fmt: skip
    assert again(lake) == ([], {})


def test_a_version_of_an_input_that_is_not_written(tmp_path, monkeypatch):
    """mid_price goes into log_return, though it is not selected."""
    lake = bronze.make_lake(tmp_path, hours=1)
    bronze.run(lake, features=("log_return",))
    entry = next(e for e in default_registry().find("mid_price") if e.feature.channel == "orderbook")
    monkeypatch.setattr(entry.feature, "version", 7)
    assert len(planned(lake, features=("log_return",))) == 2
    other = default_registry().of_channel("orderbook")["book_vwap"]
    monkeypatch.setattr(entry.feature, "version", 1)
    monkeypatch.setattr(other.feature, "version", 7)
    assert planned(lake, features=("log_return",)) == {}


KEYS = {
    "capture_ts", "timestamp", "nonce", "exchange", "symbol", "year", "month", "day", "hour",
    "row_id", "book_flag", "latency_ms", "book_history_s",
}  # fmt: skip


def columns(lake, lane=ALPHA, hour=HOURS[0]):
    return set(pq.read_schema(bronze.part(lake, lane, hour)).names)


def values(lake, name):
    return [r[name] for r in bronze.silver(lake)]


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("ofi_sum", {f"ofi_sum_{h}s" for h in (5, 15, 60, 300, 900)}),
        ("ofi_sum_60s", {"ofi_sum_60s"}),
        ("spread", {"spread"}),
        ("mid_steps", {"log_return", "mid_velocity", "mid_accel"}),
    ],
)
def test_a_feature_alone_on_a_fresh_target(tmp_path, name, made):
    lake = bronze.copy_tiny(tmp_path / "lake")
    full = {c: values(lake, c) for c in made}
    shutil.rmtree(lake / "silver")
    assert bronze.run(lake, features=name).exit_code == 0
    found = columns(lake)
    always = found - made
    assert made <= found
    assert always >= KEYS
    assert always <= KEYS | {"trade_age_s", "trade_history_s"}, "keys and flags, nothing else"
    assert {c: values(lake, c) for c in made} == full, "the values of the full run"


def test_a_feature_added_to_an_existing_target(tmp_path):
    lake = bronze.copy_tiny(tmp_path / "lake")
    both = {c: values(lake, c) for c in ("mid_price", "ofi_L1")}
    shutil.rmtree(lake / "silver")
    bronze.run(lake, features=("mid_price",))
    alone = columns(lake)
    found, stale = again(lake, features=("ofi_L1",))
    assert found == EVERY
    assert all("columns added: ofi_L1" in reason for reason in stale.values())
    assert columns(lake) == alone | {"ofi_L1"}
    assert {c: values(lake, c) for c in both} == both
    assert again(lake, features=("mid_price",)) == ([], {}), "it is there, and ofi_L1 stays"
    assert columns(lake) == alone | {"ofi_L1"}


def test_a_feature_that_is_off_is_kept_once_it_was_selected(lake):
    default = columns(lake)
    found, _ = again(lake, features=("bid_price_L0",))
    assert found == EVERY
    assert columns(lake) == default | {"bid_price_L0"}
    assert again(lake) == ([], {})
    assert columns(lake) == default | {"bid_price_L0"}
    bronze.part(lake, ALPHA, HOURS[0]).unlink()
    again(lake)
    assert columns(lake) == default | {"bid_price_L0"}, "made again with all that its record names"


def test_the_order_of_the_selection_does_not_show(tmp_path):
    one, two, three = (bronze.make_lake(tmp_path / n, [ALPHA], hours=1) for n in "abc")
    bronze.run(one, features=("ofi_L1", "mid_price", "spread"))
    bronze.run(two, features=("spread", "ofi_L1", "mid_price"))
    for name in ("spread", "mid_price", "ofi_L1"):
        bronze.run(three, features=name)
    assert bronze.tree(one / "silver") == bronze.tree(two / "silver") == bronze.tree(three / "silver")


def test_adding_a_feature_in_one_hour_leaves_the_others(tmp_path):
    lake = bronze.make_lake(tmp_path, [ALPHA])
    bronze.run(lake, features=("mid_price",))
    before = bronze.tree(lake / "silver")
    summary = bronze.run(lake, features=("spread",), start=HOURS[1], end=HOURS[2])
    assert bronze.computed(summary) == [(A, HOURS[1])]
    after = bronze.tree(lake / "silver")
    assert {k for k in after if after[k] != before[k]} == {k for k in before if "hour=23" in k}


def test_other_horizons_on_an_existing_target(tmp_path):
    """Columns of horizons that are gone cannot be kept: said in one line, or made anew."""
    lake = bronze.make_lake(tmp_path, [ALPHA], hours=1)
    config = {"features": {"ofi_sum": {"horizons": [5, 60]}}}
    bronze.run(lake, features=("ofi_sum",))
    try:
        bronze.run(lake, features=("ofi_sum",), config=config)
    except Exception as error:
        from tickstate import TickstateError

        assert isinstance(error, TickstateError)
        assert "ofi_sum_15s" in str(error)
    else:
        assert {"ofi_sum_5s", "ofi_sum_60s"} <= columns(lake)


@pytest.mark.parametrize("change", ["parameter", "bronze"])
def test_a_run_that_died_between_data_and_record_is_noticed(tmp_path, monkeypatch, change):
    """Data of a change in place, its record not written, then the change is taken back: the old record must not
    vouch for the new data, though both have as many bytes."""
    lake = tmp_path
    rows = [bronze.row(START + 1, 100, nonce=7), bronze.row(START + 2 * SECOND, 100.5, nonce=8)]
    bronze.write(lake / "bronze", bronze.table(rows))
    chosen = {"features": ("smart_bid_depth", "mid_price")}
    bronze.run(lake, **chosen)
    path = bronze.part(lake, ALPHA, HOURS[0])
    before = path.read_bytes()

    class Killed(BaseException):
        pass

    def die(step):
        if step == "data:durable":
            monkeypatch.setattr(files, "hook", None)
            raise Killed

    monkeypatch.setattr(files, "hook", die)
    late = None
    with pytest.raises(Killed):
        if change == "parameter":
            bronze.run(lake, **chosen, config={"features": {"smart_depth": {"decay_bps": 3.0}}})
        else:
            swap = [bronze.row(START + 1, 101, nonce=7), rows[1]]
            late = bronze.write(lake / "bronze", bronze.table(swap), "a.parquet")
            bronze.run(lake, **chosen)
    assert path.read_bytes() != before, "the change reached the data"
    assert path.stat().st_size == len(before), "else a look at the size is enough, and this shows nothing"
    if late is not None:
        bronze.write(lake / "bronze", bronze.table(rows), "a.parquet")
    bronze.run(lake, **chosen)
    assert path.read_bytes() == before
