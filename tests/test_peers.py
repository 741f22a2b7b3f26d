"""The table of peers: what others make of a small seeded market is what tickstate makes, but for what the table says."""

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
    for family, peer in PAIRS:
        module = NEEDS.get(peer.tool)
        absent = module is not None and importlib.util.find_spec(module) is None
        reason = f"{peer.tool} is not installed here; tox -e bench compares it"
        mark = pytest.mark.skipif(absent, reason=reason)
        yield pytest.param(family, peer, id=f"{family.name}-{peer.tool}", marks=mark)


every_pair = pytest.mark.parametrize(("family", "peer"), list(pairs()))


@pytest.fixture(scope="module")
def market():
    found = small_market()
    for table in (found.books, found.tape):
        assert (np.diff(table["capture_ts"].cast("int64").to_numpy()) > 0).all(), "no two rows of one time: TIES"
    return found


@every_pair
def test_values_agree(market, family, peer):
    assert differences(family, peer, market) == []


@every_pair
def test_stated_differences_are_there(market, family, peer):
    """What the table allows is needed; else it would hide a change."""
    for what, noticed in undeclared(family, peer, market).items():
        assert noticed, f"{peer.tool} no longer differs in {what}"


def test_every_family_has_a_peer_and_every_peer_is_said():
    assert all(family.peers for family in FAMILIES)
    assert len({(family.name, peer.tool) for family, peer in PAIRS}) == len(PAIRS)
    for family, peer in PAIRS:
        declared = peer.omits or peer.empty is not None or peer.first or peer.last
        assert peer.differs or not declared, (family.name, peer.tool)
