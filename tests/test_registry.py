"""The registry and the graph: mistakes of plugins named at registration, order, selection, lookback."""

from __future__ import annotations

import bronze
import numpy as np
import pytest
from plugins import Point

from tickstate import Column, Feature, FeatureError, Lookback, Param, Registry, Settings, default_registry
from tickstate.features.graph import build_graph
from tickstate.kernels import step, window
from tickstate.runners import cli
from tickstate.runners.plan import make_plan
from tickstate.runners.selection import Selection

BOOK = ("capture_ts", "bid_price", "ask_price")
SECOND = 1_000_000


def feature(name="mine", *, column=None, bases=(Feature,), **declared):
    """A feature class that breaks no rule, changed."""
    column = column or f"{name}_value"
    found = {
        "name": name, "group": "test", "inputs": BOOK, "kernel": step.mid_steps,
        "outputs": (Column(column, "quote", "a - b"),), "__doc__": "A feature of a test.",
    }  # fmt: skip
    return type(name.title() or "Nameless", bases, {**found, **declared})


@pytest.fixture
def registry():
    return Registry()


def test_a_feature_that_breaks_no_rule(registry):
    made = feature()
    assert registry.register(made, "package") is made
    assert [(e.feature, e.package) for e in registry] == [(made, "package")]
    assert registry.find("mine")[0].feature is made
    assert registry.find("test") == registry.find("mine_value") == registry.find("mine")


BROKEN = {
    "no class": (lambda: "ofi", "subclass"),
    "an instance": (lambda: feature().make(), "subclass"),
    "not a feature": (lambda: type("Mine", (), {"name": "mine"}), "subclass"),
    "no name": (lambda: feature(""), "name ''"),
    "a name in capitals": (lambda: feature("Mine"), "name 'Mine'"),
    "a name with a space": (lambda: feature("my feature", column="x"), "lower-case"),
    "a name with a path": (lambda: feature("../x", column="x"), "lower-case"),
    "an unknown channel": (lambda: feature(channel="orderbok"), "did you mean 'orderbook'"),
    "no group": (lambda: feature(group=""), "declaration is missing"),
    "no inputs": (lambda: feature(inputs=()), "declaration is missing"),
    "version 0": (lambda: feature(version=0), "version 0"),
    "a parameter without a doc": (lambda: feature(params={"h": Param(5, "")}), "parameter 'h'"),
    "a bare parameter": (lambda: feature(params={"h": 5}), "parameter 'h'"),
    "a column with a space": (lambda: feature(column="my column"), "column 'my column'"),
    "a column with a path": (lambda: feature(column="../x"), "letters, digits and _"),
    "a reserved column": (lambda: feature(column="row_id"), "column 'row_id' is reserved"),
    "a partition column": (lambda: feature(column="hour"), "column 'hour' is reserved"),
    "a column of bronze": (lambda: feature(column="bid_price"), "column 'bid_price' is reserved"),
    "no unit": (lambda: feature(outputs=(Column("x", "", "a - b"),)), "lacks unit or formula"),
    "no formula": (lambda: feature(outputs=(Column("x", "quote", ""),)), "lacks unit or formula"),
    "an unknown dtype": (lambda: feature(outputs=(Column("x", "1", "f", dtype="float"),)), "dtype 'float'"),
    "texts without categories": (lambda: feature(outputs=(Column("x", "1", "f", dtype="string"),)), "dtype 'string'"),
    "categories of a double": (lambda: feature(outputs=(Column("x", "1", "f", categories=("a",)),)), "dtype 'double'"),
    "a column twice": (lambda: feature(outputs=(Column("x", "1", "f"), Column("x", "1", "g"))), "'x'"),
    "no columns": (lambda: feature(outputs=()), "column"),
    "no kernel": (lambda: type("Mine", (Feature,), {"name": "mine", "group": "g", "inputs": BOOK,
                                                    "outputs": (Column("x", "1", "f"),)}), "declaration is missing"),
    "a default that does not fit": (
        lambda: feature(params={"h": Param(0, "hours", minimum=1)}), "at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_is_named(registry, what):
    make, says = BROKEN[what]
    with pytest.raises(FeatureError) as caught:
        registry.register(make(), "their-package")
    assert says in str(caught.value)
    assert list(registry) == [], "and it is not in"


def test_the_plugin_and_its_package_are_named(registry):
    with pytest.raises(FeatureError, match="plugin 'mine' of package 'their-package'"):
        registry.register(feature(group=""), "their-package")


def test_a_name_taken(registry):
    registry.register(feature("mine", column="a"), "first")
    with pytest.raises(FeatureError, match="name 'mine' is taken by package 'first'") as caught:
        registry.register(feature("mine", column="b"), "second")
    assert "'second'" in str(caught.value)
    assert len(list(registry)) == 1


def test_a_column_taken(registry):
    registry.register(feature("mine", column="a"), "first")
    with pytest.raises(FeatureError, match="column 'a' is already made by 'mine' of package 'first'"):
        registry.register(feature("other", column="a"), "second")


def test_built_in_columns_are_taken():
    registry = Registry()
    for entry in default_registry():
        registry.register(entry.feature, entry.package)
    with pytest.raises(FeatureError, match="column 'ofi' is already made by 'ofi' of package 'tickstate'"):
        registry.register(feature("other", column="ofi"), "theirs")


def test_find_suggests(registry):
    registry.register(feature("alpha_beta"))
    with pytest.raises(FeatureError, match="did you mean 'alpha_beta'"):
        registry.find("alpha_bate")


def test_an_unknown_input_is_named(registry):
    registry.register(feature("one", column="micro_price"))
    registry.register(feature("two", inputs=("capture_ts", "micro_prise")))
    with pytest.raises(FeatureError, match=r"feature 'two'.*'micro_prise'.*did you mean 'micro_price'"):
        build_graph("orderbook", ["two"], registry=registry)
    assert build_graph("orderbook", ["one"], registry=registry).features, "the others are not touched"


def test_a_cycle_is_shown(registry):
    registry.register(feature("one", column="a", inputs=("c",)))
    registry.register(feature("two", column="b", inputs=("a",)))
    registry.register(feature("three", column="c", inputs=("b",)))
    registry.register(feature("outside", column="d", inputs=("c",)))
    with pytest.raises(FeatureError, match="one -> three -> two -> one"):
        build_graph("orderbook", ["one"], registry=registry)
    with pytest.raises(FeatureError, match="circle: three -> two -> one -> three"):
        build_graph("orderbook", ["outside"], registry=registry)


def test_a_feature_that_reads_itself(registry):
    registry.register(feature("one", column="a", inputs=("a",)))
    with pytest.raises(FeatureError, match="one -> one"):
        build_graph("orderbook", ["one"], registry=registry)


def test_features_are_held_together_by_check(registry):
    registry.register(feature("reader", inputs=("capture_ts", "later_value")), "first")
    with pytest.raises(FeatureError, match="'later_value'"):
        registry.check()
    registry.register(feature("later"), "second")
    registry.check()


def test_check_names_package_plugin_and_the_nearest_input(registry):
    registry.register(feature("one", column="micro_price"), "first")
    registry.register(feature("two", inputs=("capture_ts", "micro_prise")), "second")
    with pytest.raises(FeatureError) as caught:
        registry.check()
    assert caught.value.where == "plugin 'two' of package 'second'"
    assert caught.value.got == "unknown input 'micro_prise'"
    assert "did you mean 'micro_price'?" in caught.value.fix
    assert "pip uninstall second" in caught.value.fix


def test_an_input_of_another_channel_is_unknown(registry):
    registry.register(feature("one", channel="trades", inputs=("price",)))
    registry.register(feature("two", inputs=("one_value",)))
    with pytest.raises(FeatureError, match=r"plugin 'two'.*unknown input 'one_value'"):
        registry.check()


def test_check_shows_a_circle_as_a_path_and_its_packages(registry):
    registry.register(feature("outside", column="d", inputs=("c",)), "zeroth")
    registry.register(feature("one", column="a", inputs=("c",)), "first")
    registry.register(feature("two", column="b", inputs=("a",)), "second")
    registry.register(feature("three", column="c", inputs=("b",)), "second")
    with pytest.raises(FeatureError) as caught:
        registry.check()
    assert "in a circle: three -> two -> one -> three" in str(caught.value)
    assert caught.value.where == "packages 'first' and 'second'"
    assert "pip uninstall second" in caught.value.fix


def test_a_feature_that_reads_itself_is_a_circle(registry):
    registry.register(feature("one", column="a", inputs=("a",)), "first")
    with pytest.raises(FeatureError, match=r"package 'first'.*circle: one -> one"):
        registry.check()


def test_extended_leaves_the_registry_alone(registry):
    registry.register(feature("one"), "first")
    two = feature("two", inputs=("one_value",))
    more = registry.extended([two], "second")
    assert [(e.feature.name, e.package) for e in more] == [("one", "first"), ("two", "second")]
    assert [e.feature.name for e in registry] == ["one"]
    anew = feature("two", inputs=("one_value",), version=2)
    assert [e.feature.version for e in more.extended([anew], "third")] == [1, 2], "a class imported anew"
    with pytest.raises(FeatureError, match="unknown input"):
        registry.extended([feature("three", inputs=("nothing",))], "second")


def chain(registry):
    """mid -> step (1 step) -> window (60 s) -> mean (300 s)."""
    registry.register(feature("mean", column="m", inputs=("capture_ts", "w"), looks_back=Lookback(seconds=300)))
    registry.register(feature("window", column="w", inputs=("capture_ts", "s"), looks_back=Lookback(seconds=60)))
    registry.register(feature("step", column="s", inputs=("mid",), looks_back=Lookback(steps=1)))
    registry.register(feature("mid", column="mid"))
    registry.register(feature("side", column="x", inputs=("mid",), looks_back=Lookback(seconds=500)))
    return registry


def test_inputs_come_before_what_reads_them(registry):
    graph = build_graph("orderbook", ["mean"], registry=chain(registry))
    assert [f.name for f in graph.features] == ["mid", "step", "window", "mean"]
    assert [c.name for c in graph.columns] == ["m"], "inputs are computed, not written"


@pytest.mark.parametrize(
    ("selected", "staleness", "seconds"),
    [
        ("mid", 300.0, 0),
        ("step", 300.0, 300),
        ("window", 300.0, 60 + 300),
        ("mean", 300.0, 300 + 60 + 300),
        ("mean", 10.0, 300 + 60 + 10),
        ("side", 300.0, 500),
    ],
)
def test_lookback_adds_up(registry, selected, staleness, seconds):
    graph = build_graph("orderbook", [selected], settings=Settings(max_staleness=staleness), registry=chain(registry))
    assert graph.total_lookback == seconds * SECOND


def test_the_longest_way_counts(registry):
    chain(registry).register(feature("both", column="z", inputs=("m", "x"), looks_back=Lookback(steps=2)))
    graph = build_graph("orderbook", ["both"], registry=registry)
    assert graph.total_lookback == (2 * 300 + 300 + 60 + 300) * SECOND
    names = {f.name: graph.lookback(f) // SECOND for f in graph.features}
    assert names == {"mid": 0, "step": 300, "window": 360, "mean": 660, "side": 500, "both": 1260}


def test_worked_lookbacks_of_built_ins():
    """ofi_sum: windows up to 900 s on one step of at most 300 s."""
    for name, seconds in (("mid_price", 0), ("ofi", 300), ("ofi_sum", 1200), ("mean_relative_spread", 900)):
        graph = build_graph("orderbook", [name])
        [found] = [f for f in graph.features if f.name == default_registry().find(name)[0].feature.name]
        assert graph.lookback(found) == seconds * SECOND, name
    longer = build_graph("orderbook", ["ofi_sum"], params={"ofi_sum": {"horizons": [5, 1800]}})
    [found] = [f for f in longer.features if f.name == "ofi_sum"]
    assert longer.lookback(found) == 2100 * SECOND


def test_the_order_is_that_of_the_registry_where_it_may(registry):
    chain(registry)
    one = build_graph("orderbook", ["side", "mid", "mean"], registry=registry)
    two = build_graph("orderbook", ["mean", "mid", "side"], registry=registry)
    assert [f.name for f in one.features] == [f.name for f in two.features]
    assert [c.name for c in one.columns] == [c.name for c in two.columns] == ["m", "mid", "x"] or one == two


def test_plugins_take_part_only_when_selected(registry):
    registry.register(feature("built", column="a"))
    registry.register(feature("off", column="b", default=False))
    registry.register(feature("plugin", column="c"), "theirs")
    assert [c.name for c in build_graph("orderbook", registry=registry).columns] == ["a"]
    for name, columns in (("plugin", ["c"]), ("off", ["b"]), ("b", ["b"]), ("test", ["a", "b", "c"])):
        graph = build_graph("orderbook", [name], registry=registry)
        assert [c.name for c in graph.columns] == columns


def test_keys_are_always_there():
    names = [c.name for c in build_graph("orderbook", ["spread"]).columns]
    assert "book_history_s" in names
    assert "spread" in names
    assert "mid_price" not in names


def test_a_kept_column_without_a_feature(registry):
    registry.register(feature())
    with pytest.raises(FeatureError, match="column 'gone' of an existing partition"):
        build_graph("orderbook", ["mine"], keep=["gone"], registry=registry)


class Horizons(Feature):
    """A feature with parameters of every kind."""

    name, group, inputs = "horizons", "test", BOOK
    outputs = (Column("h", "1", "f"),)
    kernel = window.sum_windows
    params = {
        "horizons": Param((5, 60), "windows", "s", minimum=1, ascending=True),
        "decay": Param(2.0, "decay", above=0),
        "count": Param(3, "number", minimum=1),
        "kind": Param("a", "kind"),
        "flag": Param(True, "switch"),
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"horizon": [5]}, "unknown parameter 'horizon'.*did you mean 'horizons'"),
        ({"horizons": 5}, "a list"),
        ({"horizons": []}, "a list"),
        ({"horizons": [60, 5]}, "ascend"),
        ({"horizons": [5, 5]}, "ascend"),
        ({"horizons": [0, 5]}, "at least 1"),
        ({"horizons": [5, "x"]}, "int"),
        ({"horizons": [1.5]}, "int"),
        ({"horizons": [True]}, "int"),
        ({"horizons": [None]}, "int"),
        ({"horizons": [float("inf")]}, "horizons"),
        ({"horizons": [float("nan")]}, "horizons"),
        ({"decay": 0}, "above 0"),
        ({"decay": -1.0}, "above 0"),
        ({"decay": "2"}, "float"),
        ({"decay": float("nan")}, "decay"),
        ({"count": 2.5}, "int"),
        ({"count": True}, "int"),
        ({"kind": 1}, "str"),
        ({"flag": 1}, "bool"),
    ],
)
def test_parameters_are_checked(given, says):
    with pytest.raises(FeatureError, match=says) as caught:
        Horizons.make(given=given)
    assert "[features.horizons]" in str(caught.value)


def test_parameters_become_the_type_of_their_default():
    found = Horizons.make(given={"horizons": [1, 2.0], "decay": 3, "count": 4.0})
    assert (found["horizons"], found["decay"], found["count"], found["kind"]) == ((1, 2), 3.0, 4, "a")
    assert [type(found[k]) for k in ("decay", "count")] == [float, int]
    assert all(type(h) is int for h in found["horizons"])
    assert found == Horizons.make(given={"count": 4, "decay": 3.0, "horizons": (1, 2)})
    assert hash(found) == hash(Horizons.make(given={"count": 4, "decay": 3.0, "horizons": (1, 2)}))
    assert found != Horizons.make()


@pytest.mark.parametrize(
    "given", [{"max_staleness": 0}, {"max_staleness": -1}, {"max_staleness": 1e6}, {"depth": 0}, {"depth": 10**6}]
)
def test_settings_are_checked(given):
    with pytest.raises(FeatureError, match=next(iter(given))):
        Settings(**given)


def test_entry_points_are_loaded(plugins):
    one, two, three = (feature(n) for n in ("one", "two", "three"))
    registry = plugins(Point("z", [two, three], "b-package"), Point("y", one, "a-package"))
    found = [(e.feature.name, e.package) for e in registry if e.package != "tickstate"]
    assert found == [("one", "a-package"), ("two", "b-package"), ("three", "b-package")], "by package and name"
    assert "one_value" not in {c.name for c in build_graph("orderbook").columns}
    assert "one_value" in {c.name for c in build_graph("orderbook", ["one"]).columns}


@pytest.mark.parametrize("error", [ImportError("No module named 'theirs'"), SystemExit(3), ZeroDivisionError("x")])
def test_a_plugin_that_cannot_be_imported_is_left_out_and_named(plugins, error):
    registry = plugins(Point("x", error, "a-package"), Point("good", feature("good"), "b-package"))
    [found] = registry.left_out
    assert found.where == "entry point 'x' of package 'a-package'"
    assert type(error).__name__ in found.got
    assert "pip uninstall a-package" in found.fix
    assert registry.find("good")
    with pytest.raises(FeatureError, match=r"unknown feature 'bad'.*left out: entry point 'x' of package 'a-package'"):
        registry.find("bad")


def test_who_reads_what_is_left_out_is_left_out_too(plugins):
    registry = plugins(
        Point("a", feature("reader", inputs=("maker_value",)), "a-package"),
        Point("b", feature("maker", inputs=("nothing_such",)), "b-package"),
        Point("c", feature("good"), "c-package"),
    )
    assert [e.where for e in registry.left_out] == [
        "plugin 'maker' of package 'b-package'", "plugin 'reader' of package 'a-package'",
    ]  # fmt: skip
    assert [e.package for e in registry if e.package != "tickstate"] == ["c-package"]


def test_inputs_may_be_made_by_a_plugin_that_comes_later(plugins):
    reader, maker = feature("reader", inputs=("maker_value",)), feature("maker")
    assert plugins(Point("a", reader, "a-package"), Point("b", maker, "b-package")).find("reader")


WRONG = {
    "unknown input": (lambda: feature("mine", inputs=("mid_prise",)), ["unknown input 'mid_prise'", "'mid_price'"]),
    "column taken": (lambda: feature("mine", column="ofi"), ["column 'ofi' is already made by 'ofi'", "'tickstate'"]),
    "circle": (lambda: feature("mine", column="x", inputs=("x",)), ["circle: mine -> mine"]),
    "no unit": (lambda: feature("mine", outputs=(Column("x", "", "f"),)), ["'x' lacks unit or formula"]),
    "bad default": (lambda: feature("mine", params={"h": Param(0, "h", minimum=1)}), ["features.mine] h", "at least"]),
    "not one": (lambda: feature("mine", examples={"horizon": 1}), ["examples['horizon'] is no parameter"]),
    "columns fail": (lambda: feature("mine", columns=lambda self: self["h"]), ["KeyError: 'h'", "mend columns()"]),
    "arguments fail": (lambda: feature("mine", arguments=lambda self: 1 / 0), ["ZeroDivisionError"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_one_broken_plugin_is_left_out_and_says_which_package_to_remove(plugins, what):
    make, says = WRONG[what]
    registry = plugins(Point("good", feature("good"), "a-package"), Point("bad", make(), "b-package"))
    [error] = registry.left_out
    assert "'b-package'" in error.where
    for text in (*says, "'mine'" if what != "circle" else "mine", "pip uninstall b-package"):
        assert text in str(error)
    assert "a-package" not in str(error)
    assert [e.package for e in registry if e.package != "tickstate"] == ["a-package"], "the others are in"
    assert "good" in {f.name for f in build_graph("orderbook", ["good"]).features}


def test_what_is_left_out_is_told_by_a_plan_and_by_features_list(plugins, capsys, monkeypatch):
    plugins(Point("bad", ImportError("no numpy"), "b-package"))
    plan = make_plan(Selection(bronze.tiny() / "bronze", bronze.tiny() / "silver"))
    assert plan.notices == [f"left out: {default_registry().left_out[0]}"]
    monkeypatch.setattr("sys.argv", ["features", "list"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 1
    said = capsys.readouterr()
    assert said.err == f"left out: {default_registry().left_out[0]}\n"
    assert "ofi_sum" in said.out


def test_the_reference_of_a_feature_has_all_it_needs():
    for entry in default_registry():
        made = entry.feature.make()
        assert entry.feature.__doc__, entry.feature.name
        assert len(set(made.names)) == len(made.names)
        for column in made.columns():
            assert column.unit
            assert column.formula
            assert column.nulls


def test_arguments_are_read_only_arrays():
    class Windows(Horizons):
        def arguments(self):
            return (self["horizons"], (1.0, 2.0), 3)

    ints, floats, number = Windows.make().call
    assert (ints.dtype, floats.dtype, number) == (np.int64, np.float64, 3)
    assert not ints.flags.writeable
