"""The command line: one clear line for each mistake, what it prints where, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import bronze
import pytest
from bronze import ALPHA, HOURS

from tickstate.features.registry import default_registry
from tickstate.runners import cli


@pytest.fixture
def call(capsys, monkeypatch):
    """The command line in this process, by its console script: (exit code, stdout, stderr)."""

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["features", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        out, err = capsys.readouterr()
        return done.value.code or 0, out, err

    return called


@pytest.fixture
def lake(tmp_path):
    return bronze.copy_tiny(tmp_path / "lake")


MISTAKES = {
    "wrong lake": (["run", "--lake", "{lake}x"], ["{lake}x", "no such folder", "--bronze"]),
    "wrong bronze": (["run", "--bronze", "{lake}/bronz", "--silver", "{lake}/silver"], ["{lake}/bronz"]),
    "bronze is a file": (["run", "--bronze", "{file}", "--silver", "{lake}/silver"], ["no such folder"]),
    "no channel": (["run", "--bronze", "{lake}", "--silver", "{lake}/silver"], ["no channel", "bronze"]),
    "wrong channel": (["run", "--lake", "{lake}", "--channel", "orderbok"], ["did you mean 'orderbook'?"]),
    "wrong symbol": (["run", "--lake", "{lake}", "--symbol", "BTC-USD"], ["'BTC-USD'", "did you mean 'BTC-USDT'?"]),
    "wrong exchange": (["plan", "--lake", "{lake}", "--exchange", "alfa"], ["did you mean 'alpha'?"]),
    "far-off symbol": (["plan", "--lake", "{lake}", "--symbol", "??"], ["known: BTC-USDT, ETH-USDT"]),
    "wrong feature": (["run", "--lake", "{lake}", "--feature", "ofy"], ["'ofy'", "did you mean 'ofi'?"]),
    "wrong feature to describe": (["describe", "mid_prise"], ["did you mean 'mid_price'?"]),
    "wrong feature to check": (["check", "ofy"], ["did you mean 'ofi'?"]),
    "wrong check": (["check", "ofi", "--only", "prefixx"], ["did you mean 'prefix'?"]),
    "wrong versions file": (["check", "ofi", "--versions", "{file}x"], ["{file}x", "--renew"]),
    "versions file no JSON": (["check", "ofi", "--renew", "--versions", "{file}"], ["{file}", "expected JSON"]),
    "renew built-ins nowhere": (["check", "--renew"], ["--versions tests/versions.json"]),
    "wrong feature of the graph": (["graph", "--feature", "ofy"], ["did you mean 'ofi'?"]),
    "new with a bad name": (["new", "My Feature"], ["'my_feature'"]),
    "new of a bad kind": (["new", "fine", "--kind", "rows"], ["did you mean 'row'?"]),
    "new where something is": (["new", "fine", "--dir", "{lake}"], ["{lake}", "there already"]),
    "bad hour": (["run", "--lake", "{lake}", "--start", "yesterday"], ["'yesterday' is no hour", "2024-08-08T23"]),
    "half an hour": (["plan", "--lake", "{lake}", "--end", "2024-03-01T22:30"], ["is no hour"]),
    "hour 24": (["plan", "--lake", "{lake}", "--end", "2024-03-01T24"], ["is no hour"]),
    "no hour fits": (["plan", "--lake", "{lake}", "--start", "2030-01-01"], ["no bronze hour fits"]),
    "end before start": (["plan", "--lake", "{lake}", "--start", HOURS[2], "--end", HOURS[1]], ["no bronze hour fits"]),
    "no config": (["run", "--lake", "{lake}", "--config", "{lake}/no.toml"], ["{lake}/no.toml", "no such file"]),
    "config is a folder": (["run", "--lake", "{lake}", "--config", "{lake}"], ["{lake}"]),
    "config is binary": (["run", "--lake", "{lake}", "--config", "{binary}"], ["{binary}"]),
    "config no TOML": (["run", "--lake", "{lake}", "--config", "{file}"], ["{file}", "not TOML"]),
    "set without a value": (["run", "--lake", "{lake}", "--set", "ofi"], ["--set", "feature.parameter=value"]),
    "set an unknown feature": (["plan", "--lake", "{lake}", "--set", "smart_dept.decay_bps=1"], ["'smart_depth'"]),
    "set an unknown parameter": (["plan", "--lake", "{lake}", "--set", "smart_depth.decay=1"], ["mean 'decay_bps'?"]),
    "set a wrong value": (["plan", "--lake", "{lake}", "--set", "smart_depth.decay_bps=fast"], ["'fast'", "decay_bps"]),
    "set a value out of bounds": (["plan", "--lake", "{lake}", "--set", "smart_depth.decay_bps=0"], ["above 0"]),
    "set horizons down": (["plan", "--lake", "{lake}", "--set", "ofi_sum.horizons=[60, 5]"], ["ascend"]),
    "set infinity": (["plan", "--lake", "{lake}", "--set", "run.depth=inf"], ["inf"]),
    "set an endless window": (["plan", "--lake", "{lake}", "--set", "ofi_sum.horizons=[inf]"], ["inf"]),
    "set an unknown setting": (["plan", "--lake", "{lake}", "--set", "run.dept=5"], ["did you mean 'depth'?"]),
    "set a setting out of bounds": (["plan", "--lake", "{lake}", "--set", "run.depth=0"], ["depth"]),
    "silver is bronze": (
        ["run", "--bronze", "{lake}/bronze", "--silver", "{lake}/x/../bronze/"],
        ["silver is the same place as bronze", "change --silver or --bronze"],
    ),
    "gold in bronze": (
        ["run", "--tier", "gold", "--lake", "{lake}", "--gold", "{lake}/bronze/trades"],
        ["gold is in bronze's folder 'trades'", "change --gold or --bronze"],
    ),
    "gold in silver": (
        ["plan", "--lake", "{lake}", "--gold", "{lake}/silver/orderbook/bars"], ["gold is in silver's folder 'orderb"],
    ),
    "silver for bronze": (
        ["run", "--bronze", "{lake}/silver", "--silver", "{lake}/bronze"],
        ["bronze {lake}/silver: it has records of commits, as silver has", "check --bronze, --silver"],
    ),
    "another bronze for silver": (
        ["run", "--runner", "watcher", "--once", "--bronze", "{lake}/bronze", "--silver", "{others}"],
        ["silver {others}: orderbook/exchange=", ".parquet is not of tickstate's making", "check --bronze, --silver"],
    ),
    "others' bars": (
        ["run", "--tier", "gold", "--silver", "{lake}/silver", "--gold", "{bars}"],
        ["gold {bars}: trades_bars/", "b.parquet is not of tickstate's making"],
    ),
    "links in a circle": (["run", "--lake", "{circle}"], ["{circle}"]),
    "silver is a file": (["run", "--bronze", "{lake}/bronze", "--silver", "{file}"], ["{file}"]),
}  # fmt: skip

CONFIGS = {
    "unknown section": ("[rum]\ndepth = 3", ["unknown key 'rum'", "did you mean 'run'?"]),
    "unknown setting": ("[run]\nmax_stalenes = 3", ["unknown key 'max_stalenes'", "did you mean 'max_staleness'?"]),
    "unknown feature": ("[features.smart_dept]\ndecay_bps = 2", ["did you mean 'smart_depth'?"]),
    "unknown parameter": ("[features.smart_depth]\ndecay = 2", ["did you mean 'decay_bps'?"]),
    "no lane": ('[features.smart_depth.decay_bps]\n"BTC" = 2', ["'BTC' is no lane"]),
    "unknown selection": ('[run]\nfeatures = ["ofy"]', ["unknown feature 'ofy'"]),
    "features no list": ('[run]\nfeatures = "ofi"', ["'ofi'", "list"]),
    "features a number": ("[run]\nfeatures = 5", ["5", "list"]),
    "a section no table": ("run = 5", ["expected a table"]),
    "a feature no table": ("[features]\nsmart_depth = 5", ["smart_depth"]),
    "nan": ("[run]\nmax_staleness = nan", ["max_staleness"]),
}


def one_line(code, out, err, says):
    assert "Traceback" not in out + err
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("features: ")
    for text in says:
        assert text in err


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_line(call, lake, tmp_path, what):
    places = {"lake": lake, "file": tmp_path / "file", "binary": tmp_path / "binary"}
    places["file"].write_text("not TOML")
    places["binary"].write_bytes(b"\xff\xfe[run]")
    places |= {name: tmp_path / name for name in ("others", "bars", "circle")}
    (places["bars"] / "trades_bars").mkdir(parents=True)
    shutil.copy(next((lake / "bronze").rglob("*.parquet")), places["bars"] / "trades_bars/b.parquet")
    shutil.copytree(lake / "bronze", places["others"])
    places["circle"].symlink_to(places["circle"])
    files = sorted(tmp_path.rglob("*"))
    before = bronze.tree(tmp_path)
    arguments, says = MISTAKES[what]
    one_line(*call(*(a.format(**places) for a in arguments)), [s.format(**places) for s in says])
    assert bronze.tree(tmp_path) == before, "nothing was written"
    if "making" in str(says):
        assert sorted(tmp_path.rglob("*")) == files, "nothing at all"


@pytest.mark.parametrize("what", CONFIGS)
def test_a_mistake_in_the_configuration_is_one_line(call, lake, tmp_path, what):
    text, says = CONFIGS[what]
    path = tmp_path / "features.toml"
    path.write_text(text)
    one_line(*call("plan", "--tier", "silver", "--lake", lake, "--config", path), says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--bronze", "b"], "give --silver DIR"),
        (["run", "--silver", "s"], "give --bronze DIR"),
        (["plan"], "--lake DIR"),
        (["run", "--runner", "watch"], "'watch'"),
        (["run", "--workers", "0"], "0"),
        (["run", "--demo", "--bronze", "b"], "leave --bronze away"),
        (["run", "--lak", "x"], "--lake"),
        (["rum"], "rum"),
        (["describe"], "NAME"),
    ],
)
def test_wrong_usage(call, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["run", "--lake", "nowhere"], ["describe", "ofy"], ["run", "--bronze", "x"]])
def test_exit_codes_of_the_process(tmp_path, arguments):
    found = bronze.features(*arguments, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert "Traceback" not in found.stderr
    assert found.stderr.strip()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "--help"], ["--version"]])
def test_help(call, arguments):
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert out.strip()


def test_a_run_says_what_was_done(call, lake):
    bronze.part(lake, ALPHA, HOURS[0]).unlink()
    code, out, err = call("run", "--runner", "single", "--tier", "silver", "--lake", lake)
    assert code == 0
    assert "1 partitions computed, 7 up to date, 0 failed" in out
    assert "120" in out
    assert "Traceback" not in err
    code, out, err = call("run", "--runner", "single", "--tier", "silver", "--lake", lake)
    assert code == 0
    assert out.startswith("nothing to do: all 8 partitions are up to date")
    assert err == ""


def test_json_of_a_run(call, lake):
    bronze.part(lake, ALPHA, HOURS[0]).unlink()
    code, out, _ = call("run", "--runner", "single", "--tier", "silver", "--lake", lake, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["partitions"], found["computed"], found["up_to_date"]) == (8, 1, 7)
    assert found["failed"] == found["quarantined"] == []
    assert found["counters"]["rows"] == 120
    assert (
        json.loads(call("run", "--runner", "single", "--tier", "silver", "--lake", lake, "--json")[1])["computed"] == 0
    )


def test_plan_says_why(call, lake):
    before = bronze.tree(lake)
    assert call("plan", "--tier", "silver", "--lake", lake)[1].splitlines() == ["0 partitions to compute, 8 up to date"]
    bronze.part(lake, ALPHA, HOURS[0]).unlink()
    code, out, err = call("plan", "--tier", "silver", "--lake", lake)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"orderbook alpha/BTC-USDT {HOURS[0]}: output missing", "1 partitions to compute, 7 up to date",
    ]  # fmt: skip
    found = json.loads(call("plan", "--tier", "silver", "--lake", lake, "--json")[1])
    assert found["partitions"] == 8
    assert found["stale"] == [{"partition": f"orderbook alpha/BTC-USDT {HOURS[0]}", "reasons": ["output missing"]}]
    assert len(bronze.tree(lake)) == len(before) - 1, "and nothing was made"


@pytest.mark.parametrize("arguments", [["run", "--dry-run"], ["run", "--dry-run", "--runner", "single"], ["plan"]])
def test_a_dry_run_computes_nothing(call, lake, arguments):
    bronze.commit(lake, ALPHA, HOURS[0]).unlink()
    before = bronze.tree(lake)
    code, out, _ = call(*arguments, "--tier", "silver", "--lake", lake, "--set", "smart_depth.decay_bps=3", "--json")
    assert code == 0
    assert len(json.loads(out)["stale"]) == 8
    assert bronze.tree(lake) == before


def test_a_fresh_silver_is_not_made_by_a_plan(call, lake, tmp_path):
    code, out, _ = call("plan", "--bronze", lake / "bronze", "--silver", tmp_path / "new")
    assert code == 0
    assert "8 partitions to compute" in out
    assert not (tmp_path / "new").exists()


def test_options_choose(call, lake, tmp_path):
    silver = tmp_path / "new"
    arguments = ["--bronze", lake / "bronze", "--silver", silver, "--exchange", "alpha", "--symbol", "BTC-USDT"]
    arguments += ["--channel", "orderbook", "--start", HOURS[1], "--end", HOURS[2], "--feature", "spread"]
    code, out, _ = call("run", "--runner", "single", *arguments, "--json")
    assert (code, json.loads(out)["computed"]) == (0, 1)
    [path] = silver.rglob("part-0.parquet")
    assert "exchange=alpha" in str(path)
    assert "hour=23" in str(path)


def test_set_and_config(call, lake, tmp_path):
    """--set goes over the file; a list is written as in TOML."""
    path = tmp_path / "features.toml"
    path.write_text('[run]\nfeatures = ["smart_depth"]\n[features.smart_depth]\ndecay_bps = 3.0\n')
    silver = tmp_path / "new"
    arguments = ["run", "--runner", "single", "--bronze", lake / "bronze", "--silver", silver, "--config", path]
    assert call(*arguments, "--set", "smart_depth.decay_bps=2.5")[0] == 0
    record = json.loads(next((silver / "_commits").rglob("*.json")).read_text())
    assert record["features"]["smart_depth"]["params"] == {"decay_bps": 2.5}
    assert "smart_bid_depth" in record["columns"]
    assert "mid_price" not in record["columns"]
    assert json.loads(call(*arguments, "--json")[1])["computed"] == 8, "the file's own value is another"


def test_progress_goes_to_stderr(call, lake, monkeypatch):
    from tickstate.runners import report

    monkeypatch.setattr(report, "EVERY_SECONDS", -1.0)
    for hour in HOURS[:2]:
        bronze.part(lake, ALPHA, hour).unlink()
    code, out, err = call("run", "--runner", "single", "--tier", "silver", "--lake", lake, "--json")
    assert code == 0
    json.loads(out)
    assert "2 of 2 partitions" in err


def test_list_shows_every_feature(call):
    code, out, err = call("list")
    assert (code, err) == (0, "")
    shown = {line.split()[0] for line in out.splitlines()[1:]}
    assert shown == {e.feature.name for e in default_registry()}
    found = json.loads(call("list", "--json")[1])
    assert {(f["name"], f["channel"]) for f in found} == {
        (e.feature.name, e.feature.channel) for e in default_registry()
    }


def test_check_prints_each_check(call):
    from tickstate.features.checks import CHECKS

    code, out, err = call("check", "weighted_mid")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "top_of_book (orderbook)"
    assert [line.split()[1] for line in lines[1:-1]] == [*CHECKS]
    assert "  waived  agrees_with_reference        compared with tests/naive.py in the test suite" in lines
    assert lines[-1] == f"{len(CHECKS)} checks: {len(CHECKS) - 2} passed, 0 failed, 2 waived"
    [found] = json.loads(call("check", "weighted_mid", "--only", "prefix", "--json")[1])
    assert found == {
        "feature": "top_of_book", "channel": "orderbook", "check": "prefix", "outcome": "passed", "reason": "",
    }  # fmt: skip


def test_check_of_a_broken_feature_is_exit_code_1(call, monkeypatch, tmp_path):
    import broken_features

    monkeypatch.setattr(
        "tickstate.runners.catalog.default_registry",
        lambda: default_registry().extended([broken_features.LooksAhead, broken_features.Good], "theirs"),
    )
    code, out, _ = call("check", "looks_ahead", "good", "--only", "prefix", "--only", "version_raised")
    assert code == 1
    assert "looks_ahead (orderbook)\n  failed  prefix" in out
    assert "good (orderbook)\n  passed  prefix" in out
    assert out.endswith("4 checks: 1 passed, 2 failed, 1 waived\n")
    code, out, _ = call("check", "good", "--renew", "--versions", tmp_path / "versions.json")
    assert (code, out) == (0, f"{tmp_path / 'versions.json'}: orderbook/good\n1 records changed\n")
    code, out, _ = call("check", "looks_ahead", "--versions", tmp_path / "versions.json", "--only", "version_raised")
    assert code == 1
    assert "not in the versions file" in out


def test_graph_of_one_feature_and_what_it_needs(call):
    assert call("graph", "--feature", "kyle_lambda") == (0, "\n".join([
        "orderbook",
        "  top_of_book <- bronze (bid_price, bid_size, ask_price, ask_size)",
        "  mid_steps <- bronze (capture_ts), top_of_book (mid_price)",
        "  trade_clock <- bronze (capture_ts), bronze trades (trades.capture_ts)",
        "  signed_trade_vol <- bronze (capture_ts), bronze trades (trades.capture_ts, trades.amount, trades.side)",
        "  kyle_lambda <- bronze (capture_ts), signed_trade_vol (signed_trade_vol), mid_steps (log_return), "
        "trade_clock (trade_age_s)",
        "",
    ]), "")  # fmt: skip


def test_graph_shows_every_feature(call):
    code, out, err = call("graph")
    assert (code, err) == (0, "")
    shown = [line.split()[0] for line in out.splitlines() if " <- " in line]
    assert shown == [e.feature.name for e in default_registry()]


def test_graph_as_dot(call):
    code, out, err = call("graph", "--dot")
    assert (code, err) == (0, "")
    assert out.startswith("digraph features {")
    assert out.count("{") == out.count("}") == 1 + len({e.feature.channel for e in default_registry()})
    name = r'"(?:[^"\\]|\\.)*"'
    statements = (
        r"digraph features {", r"  rankdir=LR; ((node|edge) \[fontname=sans, fontsize=\d+\]; ?)+", r"  }", r"}",
        rf"  subgraph {name} {{ label={name};", rf"    {name} \[(shape=box, )?label={name}\];",
        rf"  {name} -> {name} \[label={name}\];",
    )  # fmt: skip
    statement = re.compile("|".join(statements))
    assert [line for line in out.splitlines() if not statement.fullmatch(line)] == []
    if shutil.which("dot"):
        drawn = subprocess.run(["dot", "-Tsvg"], input=out, capture_output=True, text=True, check=True)
        assert drawn.stdout.count('class="edge"') == out.count(" -> ")
    for entry in default_registry():
        key = f'"{entry.feature.channel}/{entry.feature.name}"'
        assert f"    {key} [label=" in out, "a node"
        assert f" -> {key} [label=" in out, "an arrow to it"
    assert '  "orderbook/ofi" -> "orderbook/ofi_sum" [label="ofi"];' in out
    assert '  "orderbook: bronze trades" -> "orderbook/vpin" [label=' in out


def test_new_says_what_it_wrote(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("new", "my_thing", "--kind", "row")
    assert (code, err) == (0, "")
    assert (tmp_path / "tickstate-my-thing" / "src" / "tickstate_my_thing" / "my_thing.py").is_file()
    assert "pip install -e tickstate-my-thing && features check my_thing" in out


def test_describe_shows_every_column(call):
    for entry in default_registry():
        feature = entry.feature
        code, out, err = call("describe", feature.name)
        assert (code, err) == (0, "")
        for column in feature.make().columns():
            lines = [x for x in out.splitlines() if x.split()[:1] == [column.name] and column.formula in x]
            assert any(column.unit in x and column.nulls in x for x in lines), column.name
        for key, param in feature.params.items():
            assert key in out
            assert param.doc in out
        for name in feature.inputs:
            assert name in out
    found = json.loads(call("describe", "ofi", "--json")[1])
    assert found[0]["columns"][0]["name"] == "ofi"


def test_describe_a_group_and_a_column(call):
    groups = {e.feature.group for e in default_registry()}
    for group in groups:
        out = json.loads(call("describe", group, "--json")[1])
        assert {d["name"] for d in out} >= {e.feature.name for e in default_registry() if e.feature.group == group}
    [found] = json.loads(call("describe", "ofi_L3", "--json")[1])
    assert [c["name"] for c in found["columns"]] == ["ofi_L3"]


def test_the_demo(tmp_path):
    """Makes a lake beside where one stands, runs on it, and does nothing the second time."""
    found = bronze.features("run", "--demo", "--json", "--exchange", "beta", "--start", "2024-03-02T01", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["computed"] >= 2
    assert "made now" in found.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["demo-lake"]
    again = bronze.features("run", "--demo", "--exchange", "beta", "--start", "2024-03-02T01", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.startswith("nothing to do")
    assert "there already" in again.stderr
