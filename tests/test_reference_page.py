"""docs/features.md is what the registry says today."""

from __future__ import annotations

from pathlib import Path

from tickstate.runners.reference import reference

PAGE = Path(__file__).parents[1] / "docs" / "features.md"


def test_the_page_is_current():
    assert PAGE.read_text() == reference() + "\n", "write it anew: features describe --all > docs/features.md"


def test_every_column_has_its_formula():
    page = PAGE.read_text()
    for column in ("`ofi_sum_60s`", "`vpin`", "`twa_spread`", "`volume_imbalance_{threshold}"):
        assert column in page
