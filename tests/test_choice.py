"""What selected names mean: features, groups and columns of silver, rules and columns of bars."""

from __future__ import annotations

import pytest
from plugins import Point

import tickstate
from tickstate.features import bars
from tickstate.features.graph import build_graph
from tickstate.runners.choice import DEFAULT, rule_kinds, silver_names


class Moves(bars.VolumeBars):
    """A kind of bars of a package."""

    name, prefix, total = "moves", "moves", ""
    params = {"threshold": bars.Threshold(30.0, "lots", "lots")}


@pytest.fixture
def moves(plugins):
    return plugins(Point("moves", Moves, "their-package"))


def test_names_of_silver():
    assert silver_names("orderbook", None) is None
    assert silver_names("orderbook", ["ofi", "flow", "ofi_sum_60s", "ofi"]) == ("ofi", "flow", "ofi_sum_60s")
    assert silver_names("ticker", ["ofi"]) == ()
    with pytest.raises(tickstate.FeatureError, match="unknown feature 'ofy'; did you mean 'ofi'"):
        silver_names("ticker", ["ofy"])


@pytest.mark.parametrize("group", ["structure", "flow", "impact"])
def test_a_group_selects_its_columns(group):
    graph = build_graph("orderbook", [group])
    registry = tickstate.default_registry()
    mine = {c for e in registry.find(group) if e.feature.channel == "orderbook" for c in e.names}
    keys = {c for e in registry.find("keys") if e.feature.channel == "orderbook" for c in e.names}
    assert {c.name for c in graph.columns} == mine | keys
    assert mine


def test_a_name_of_bars_means_in_silver_what_they_are_made_of(moves):
    assert rule_kinds(["moves", "ofi"]) == ("moves",)
    assert rule_kinds(["time_bars"]) == DEFAULT
    assert rule_kinds(None) == rule_kinds(["volume"]) == (), "the column of silver"
    assert silver_names("orderbook", ["moves"]) == ()
    assert silver_names("trades", ["moves"]) == ("log_return", "quote_volume")
    assert "mid_price" in silver_names("orderbook", ["bars"])
    assert "mid_price" in silver_names("ticker", ["bars"])


def test_a_rule_without_a_total_has_no_auto(moves):
    assert Moves.kind_pattern() == "moves_{threshold} or moves"
    with pytest.raises(tickstate.FeatureError, match=r"features\.moves\] threshold: 'auto'; expected a number"):
        Moves.make(given={"threshold": "auto"})
    assert bars.VolumeBars.make(given={"threshold": "auto"})["threshold"] == "auto"
