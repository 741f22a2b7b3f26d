"""Every built-in through every check; every broken feature caught by the check that is meant for it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import sys
import types
from functools import cache
from itertools import pairwise
from pathlib import Path

import broken_features
import naive
import naive_channels
import numpy as np
import pytest

from tickstate import Block, FeatureError, Floats, Int, default_registry, kernel
from tickstate.features import checks, flow, versions
from tickstate.features.base import SECOND
from tickstate.features.checking_data import DEPTH, MIDNIGHT, lanes, make_lane, run_lane
from tickstate.features.checks import CHECKS
from tickstate.features.graph import build_graph
from tickstate.kernels import cells, step, window
from tickstate.testing import CheckError, check_feature, parametrize_with_checks

BUILT_INS = [e.feature for e in default_registry() if e.package == "tickstate"]
VERSIONS = Path(__file__).with_name("versions.json")


# ---- built-ins


def rows_of(lane):
    """A lane as the row dicts of naive.py."""
    rows = [{"capture_ts": int(t), "timestamp": int(t) // 1000, "bids": [], "asks": []} for t in lane.times]
    rows = [row | dict.fromkeys(("price", "amount", "side", "bid", "ask")) for row in rows]
    for n, i in enumerate(lane.valid):
        row = {name: values[n].item() for name, values in lane.arrays.items() if values.ndim == 1}
        for side in ("bid", "ask") if lane.channel == "orderbook" else ():
            levels = zip(*(lane.arrays[f"{side}_{what}"][:, n].tolist() for what in ("price", "size")), strict=True)
            row[f"{side}s"] = [{"price": p, "size": s} for p, s in levels if p == p]
        rows[i] |= row
    return [row | {"side": {1.0: "buy", -1.0: "sell"}.get(row["side"])} for row in rows]


@cache
def naive_columns(channel, which, params):
    lane = lanes(channel)[which]
    rows = rows_of(lane)
    if channel != "orderbook":
        found = getattr(naive_channels, channel)(rows)
    else:
        names = {1.0: "buy", -1.0: "sell"}
        trades = [
            dict(zip(lane.trades, values, strict=True))
            for values in zip(*map(np.ndarray.tolist, lane.trades.values()), strict=True)
        ]
        trades = [trade | {"side": names.get(trade["side"])} for trade in trades]
        options = dict(params)
        found = naive.orderbook(
            rows, trades, depth=DEPTH, bucket_volume=options["bucket_volume"], vpin_window=options["window"],
            min_buckets=options["min_buckets"],
        )  # fmt: skip
    return {name: [values[i] for i in lane.valid] for name, values in found.items()}


def naive_ewma(feature, lane):
    """Decayed sums over all rows since the last gap, each written out; FEATURES.md knows no such column."""
    graph = build_graph("orderbook", ["ofi", "mid_price"])
    made = run_lane(graph, lane.without_flagged())
    times, ofi, mid = lane.arrays["capture_ts"].tolist(), made["ofi"].tolist(), made["mid_price"].tolist()
    found = {name: [] for name in feature.names}
    for i, t in enumerate(times):
        gaps = [j for j in range(i + 1) if j == 0 or times[j] - times[j - 1] > feature.settings.max_staleness_us]
        first = gaps[-1]
        for h in feature["half_lives"]:
            flow = math.fsum(ofi[j] * 2.0 ** (-(t - times[j]) / SECOND / h) for j in range(first + 1, i + 1))
            weights = [2.0 ** (-(t - times[j]) / SECOND / h) for j in range(first, i + 1)]
            mean = weights[0] * mid[first]  # before the first row, its own mid stands
            mean += math.fsum((b - a) * mid[first + j] for j, (a, b) in enumerate(pairwise(weights)))
            found[f"ofi_ewma_{h}s"].append(flow if first < i else None)
            found[f"mid_ewma_{h}s"].append(mean if first < i else None)
    return found


def naive_reference(feature, lane):
    """What tests/naive.py makes of a lane, for the columns of a feature."""
    if feature.name == "ewma":
        return naive_ewma(feature, lane)
    [vpin] = [e.feature for e in default_registry() if e.feature.name == "vpin"]
    which = next(i for i, found in enumerate(lanes(feature.channel)) if found is lane)
    found = naive_columns(feature.channel, which, tuple(vpin.examples.items()))
    return {name: found[name] for name in feature.names}


@parametrize_with_checks(BUILT_INS, reference=naive_reference, versions=VERSIONS)
def test_built_in(check):
    check()


def test_every_built_in_is_in_the_versions_file_and_nothing_else():
    assert set(versions.load(VERSIONS)) == {f"{f.channel}/{f.name}" for f in BUILT_INS}, (
        "features check --renew --versions tests/versions.json, and take out what is gone"
    )


def test_the_lanes_have_something_of_everything():
    for channel in ("orderbook", "trades", "ticker"):
        mixed, steady = lanes(channel)
        for lane in (mixed, steady):
            steps = np.diff(lane.times)
            assert (steps == 0).any()
            assert (lane.flag != 0).any()
            assert lane.times[0] < MIDNIGHT < lane.times[-1]
            assert len(lane.valid) == len(lane.arrays["capture_ts"]) < len(lane)
        assert (np.diff(mixed.times) > 300 * SECOND).any()
        assert (np.diff(steady.times) < 180 * SECOND).all()
        assert steady.times[-1] - steady.times[0] > 1200 * SECOND
    book = lanes("orderbook")[0].arrays
    assert len(set(book["bid_levels"].tolist())) > 4
    assert np.isnan(lanes("orderbook")[0].trades["side"]).any()
    assert np.isnan(lanes("ticker")[0].arrays["bid_volume"]).any()


def test_lanes_are_the_same_in_every_process():
    """Else the hashes of tests/versions.json would be of other rows."""
    digest = hashlib.sha256()
    for channel in ("orderbook", "trades", "ticker"):
        lane = make_lane(channel, versions.ROWS, versions.SEED, gaps=0.04)
        for values in (lane.times, lane.flag, *lane.arrays.values(), *lane.trades.values()):
            digest.update(np.ascontiguousarray(values.T).tobytes())  # levels row by row
    assert digest.hexdigest()[:16] == "677055dc930b5ef5"


# ---- broken features


def test_the_good_one_passes_every_check():
    found = check_feature(broken_features.Good)
    assert [r.check for r in found] == [*CHECKS]
    assert [r for r in found if r.outcome == "failed"] == []
    assert [r.check for r in found if r.outcome == "waived"] == ["version_raised"], "by itself: see its class"


def test_a_good_rule_of_bars_passes_every_check():
    found = check_feature(broken_features.Moves)
    assert [r for r in found if r.outcome == "failed"] == []
    assert {r.check for r in found if r.outcome == "waived"} == {"version_raised", "cold_start"}


@pytest.mark.parametrize(
    ("feature", "check", "says"),
    broken_features.BROKEN,
    ids=[f"{f.__name__}-{c}" for f, c, _ in broken_features.BROKEN],
)
def test_a_broken_feature_is_caught_by_the_check_for_it(feature, check, says):
    [found] = check_feature(feature, [check])
    assert (found.check, found.outcome) == (check, "failed")
    assert says in found.reason


def test_a_name_selects_what_is_checked():
    found = check_feature("calendar", ["prefix"])
    assert [(r.channel, r.feature) for r in found] == [("trades", "calendar"), ("ticker", "calendar")]
    with pytest.raises(FeatureError, match="unknown check 'prefixes'; did you mean 'prefix'"):
        check_feature("ofi", ["prefixes"])
    with pytest.raises(FeatureError, match="did you mean 'ofi'"):
        check_feature("ofy")


def test_a_waiver_is_data_with_a_reason():
    class Waived(broken_features.LooksAhead):
        """Knows the next mid, on purpose."""

        waivers = {"prefix": "a label for training: it is meant to look ahead"}

    [found] = check_feature(Waived, ["prefix"])
    assert (found.outcome, found.reason) == ("waived", "a label for training: it is meant to look ahead")
    for waivers in ({"prefixes": "why"}, {"prefix": ""}):
        Waived.waivers = waivers
        [found] = check_feature(Waived, ["schema_and_units"])
        assert found.outcome == "failed"
        assert "a check and a reason" in found.reason


def test_a_feature_that_does_not_register_fails_with_the_reason():
    found = check_feature(broken_features.NoUnit)
    assert {r.outcome for r in found} == {"failed"}
    assert all("plugin 'no_unit' of package 'not installed'" in r.reason for r in found)


def test_each_check_says_what_it_holds():
    for name, check in CHECKS.items():
        assert check.__doc__.splitlines()[0].endswith("."), name


def test_a_bound_check_raises_or_skips():
    [mark] = parametrize_with_checks([broken_features.LooksAhead, broken_features.Good]).args[1:]
    by_name = {repr(check): check for check in mark}
    assert len(by_name) == 2 * len(CHECKS)
    by_name["orderbook-good-prefix"]()
    with pytest.raises(CheckError, match=r"feature 'looks_ahead', check 'prefix': .*do not read rows after row i"):
        by_name["orderbook-looks_ahead-prefix"]()
    with pytest.raises(pytest.skip.Exception, match="waived: a feature of the tests"):
        by_name["orderbook-good-version_raised"]()


# ---- versions


@kernel
def shifted(mid: Floats, start: Int, out: Block) -> None:
    """m + what."""
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[i] + SHIFT


SHIFT = 0.5


@kernel
def shifted_the_same(mid: Floats, start: Int, out: Block) -> None:
    n = mid.shape[0]
    for i in range(start, n):
        out[0, i - start] = SHIFT + mid[i]


@kernel
def shifted_more(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[i] + 0.75


class Shifted(broken_features.Mid):
    """A feature whose kernel is changed below."""

    name, outputs, kernel = "shifted", broken_features.column("shifted"), shifted


def register(feature):
    return default_registry().extended([feature], "theirs")


def renew(feature, path):
    registry = register(feature)
    return checks.renew_versions(registry.find(feature.name), registry, path)


def version_check(feature, path):
    [found] = check_feature(feature, ["version_raised"], registry=register(feature), versions_file=path)
    return found


@pytest.fixture
def path(tmp_path):
    renew(Shifted, tmp_path / "versions.json")
    return tmp_path / "versions.json"


def test_an_unchanged_feature_needs_nothing(path):
    assert version_check(Shifted, path).outcome == "passed"
    assert renew(Shifted, path) == []


def test_a_feature_that_is_not_in_the_file(tmp_path):
    found = version_check(Shifted, tmp_path / "none.json")
    assert "not in the versions file" in found.reason
    assert f"features check shifted --renew --versions {tmp_path / 'none.json'}" in found.reason


def test_changed_code_fails_and_may_be_renewed_where_no_bit_changed(path, monkeypatch):
    monkeypatch.setattr(Shifted, "kernel", shifted_the_same)
    assert "the kernel's code changed and version is still 1" in version_check(Shifted, path).reason
    assert renew(Shifted, path) == [("orderbook/shifted", path)]
    assert version_check(Shifted, path).outcome == "passed"


def test_changed_numbers_need_a_version(path, monkeypatch):
    before = path.read_text()
    monkeypatch.setattr(Shifted, "kernel", shifted_more)
    assert version_check(Shifted, path).outcome == "failed"
    with pytest.raises(FeatureError, match=r"shifted.*version is still 1; expected version 2; raise version"):
        renew(Shifted, path)
    assert path.read_text() == before
    monkeypatch.setattr(Shifted, "version", 2)
    assert "version is 2, the file says 1" in version_check(Shifted, path).reason
    renew(Shifted, path)
    assert version_check(Shifted, path).outcome == "passed"
    monkeypatch.setattr(Shifted, "version", 1)
    with pytest.raises(FeatureError, match="expected 2 or more"):
        renew(Shifted, path)


def test_numbers_that_change_outside_the_kernel_need_a_version_too(path, monkeypatch):
    monkeypatch.setattr(Shifted, "inputs", ("spread",))
    monkeypatch.setattr(Shifted, "kernel", shifted)
    assert "its columns changed and version is still 1" in version_check(Shifted, path).reason
    with pytest.raises(FeatureError, match="raise version"):
        renew(Shifted, path)


def test_a_new_version_of_an_input_is_renewed(path):
    record = json.loads(path.read_text())
    record["orderbook/shifted"] |= {"inputs": {"top_of_book": 0}, "outputs": "other", "bits": "other"}
    path.write_text(json.dumps(record))
    assert "what it reads has a new version" in version_check(Shifted, path).reason
    assert renew(Shifted, path)
    assert version_check(Shifted, path).outcome == "passed"


def test_built_ins_are_renewed_into_a_file_that_is_named():
    with pytest.raises(FeatureError, match=r"--versions tests/versions\.json"):
        checks.renew_versions(default_registry().find("ofi"), default_registry())


def test_comments_and_layout_are_no_change_of_code():
    def one(x):
        """Says something."""
        return [x + SHIFT]  # a comment

    def other(x):
        return [
            x + SHIFT
        ]  # fmt: skip

    other.__qualname__, hashes = one.__qualname__, []
    for function in (one, other):
        hashes.append(versions._normalised(function).replace("other", "one"))
    assert hashes[0] == hashes[1]


def test_helpers_and_constants_count_as_code(monkeypatch):
    before = versions.code_hash(flow.OrderFlow.kernel)
    assert versions.code_hash(flow.OrderFlow.kernel) == before
    monkeypatch.setitem(step.order_flow.function.__globals__, "add_flow", step.velocity)
    assert versions.code_hash(flow.OrderFlow.kernel) != before
    before = versions.code_hash(shifted)
    monkeypatch.setattr(sys.modules[__name__], "SHIFT", 0.25)
    assert versions.code_hash(shifted) != before


def test_callees_in_other_modules_count_as_code(monkeypatch):
    """The volatility of cells calls the sum over a window, in another file."""
    before = versions.code_hash(cells.cell_volatility)
    monkeypatch.setitem(window.fold_sums.function.__globals__, "SOMEBODY", 1)
    assert versions.code_hash(cells.cell_volatility) == before, "what is not read does not count"
    monkeypatch.setattr(window.fold_sums, "function", step.velocity.function)
    assert versions.code_hash(cells.cell_volatility) != before


@pytest.fixture
def code_of(tmp_path):
    """A function: the hash of ``run`` of a module with this text, and the module; ``names`` are its globals."""

    def make(text, **names):
        place = tmp_path / f"code_{len(list(tmp_path.iterdir()))}.py"
        place.write_text(text)
        spec = importlib.util.spec_from_file_location(place.stem, place)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        vars(module).update(names)
        return versions.code_hash(module.run), module

    return make


def test_two_helpers_of_one_name_both_count(code_of):
    text = "def run(x):\n    return one(x) + two(x)\n"
    helpers = [
        code_of(f"from tickstate import helper\n@helper\ndef run(x):\n    return x + {i}\n")[1].run for i in range(3)
    ]
    first, second = (code_of(text, one=helpers[0], two=two)[0] for two in helpers[1:])
    assert first != second


def test_all_of_a_long_constant_counts(code_of):
    text = "def run(x):\n    return TABLE[x]\n"
    table = np.arange(5000.0)
    before = code_of(text, TABLE=table)[0]
    table[2500] = 0.0
    assert code_of(text, TABLE=table)[0] != before


def test_a_function_that_a_plugin_compiles_itself_counts(code_of):
    """``numba.njit`` keeps the function as ``py_func``."""
    text = "def run(x):\n    return inner(x)\n"
    found = set()
    for body in ("return x", "return -x"):
        inner = code_of(f"def run(x):\n    {body}\n")[1].run
        found.add(code_of(text, inner=types.SimpleNamespace(py_func=inner))[0])
    assert len(found) == 2
