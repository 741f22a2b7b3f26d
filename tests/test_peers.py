"""The table of peers: what others make of a small seeded market is what tickstate makes, but for what it says."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from benchmarks.agreement import differences, undeclared
from benchmarks.market import small_market
from benchmarks.peers import FAMILIES, PAIRS

NEEDS = {"finmlkit": "finmlkit"}
"""Tools that the extra `bench` alone brings: compared by `tox -e bench`, which runs this file too."""


def pairs():
    for name, (_, peer) in PAIRS.items():
        module = NEEDS.get(peer.tool)
        absent = module is not None and importlib.util.find_spec(module) is None
        reason = f"{peer.tool} is not installed here; tox -e bench compares it"
        yield pytest.param(name, marks=pytest.mark.skipif(absent, reason=reason))


every_pair = pytest.mark.parametrize("pair", list(pairs()))


@pytest.fixture(scope="module")
def market():
    found = small_market()
    for table in (found.books, found.tape):
        assert (np.diff(table["capture_ts"].cast("int64").to_numpy()) > 0).all(), "no two rows of one time: TIES"
    return found


@every_pair
def test_values_agree(market, pair):
    assert differences(*PAIRS[pair], market) == []


@every_pair
def test_stated_differences_are_there(market, pair):
    """What the table allows is needed; else it would hide a change."""
    for what, noticed in undeclared(*PAIRS[pair], market).items():
        assert noticed, f"{pair}: no longer differs in {what}"


def test_every_family_has_a_peer_and_every_peer_is_said():
    assert all(family.peers for family in FAMILIES)
    assert len(PAIRS) == sum(len(family.peers) for family in FAMILIES)
    for pair, (_, peer) in PAIRS.items():
        declared = peer.omits or peer.empty is not None or peer.first or peer.last
        assert peer.differs or not declared, pair
