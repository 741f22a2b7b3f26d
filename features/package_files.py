"""The files of a new package that are the same for every kind of feature. See ``templates.py``."""

PYPROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "$package"
version = "0.1.0"
description = "A tickstate feature: $name"
requires-python = ">=3.11"
dependencies = ["tickstate"]

[project.optional-dependencies]
test = ["pytest>=8"]

# this is how tickstate finds the feature; a list of classes works too
[project.entry-points."tickstate.features"]
$name = "$module.$name:$cls"

[tool.setuptools.package-data]
$module = ["versions.json"]
"""

INIT = '''\
"""$name, a feature for tickstate."""
'''

README = """\
# $package

`$name`: $about.

All of it is in `src/$module/$name.py`: a kernel, a class of declarations, a slow reference.

    pip install -e '.[test]'
    features list
    features describe $name
    features check $name
    pytest
    $run

When the numbers are as you want them, note them:

    features check $name --renew

That writes `versions.json` beside the module. From then on a change of the kernel that is not a new `version` fails the
check `version_raised`; partitions are computed anew when the version rises.

$notes
- Times are integer microseconds.
"""

TEST = '''\
"""$name: every check of tickstate, and a lane worked by hand."""

import $helps

import tickstate
from tickstate.testing import $tables

from $module.$name import $cls


@parametrize_with_checks([$cls])
def test_$name(check):
    check()


$test
'''

HAND = '''\
def same(got, expected):
    assert len(got) == len(expected)
    for value, wanted in zip(got, expected, strict=True):
        assert value is None if wanted is None else math.isclose(value, wanted, rel_tol=1e-12)


def test_by_hand():
    """Through the public interface, from bronze: the package must be installed (pip install -e .)."""
    table = tickstate.compute(book_table(BOOK), ["$name"], trades=trade_table(TRADES))
    same(table["$name"].to_pylist(), EXPECTED)


def test_the_reference_by_hand():
    same($cls.make().reference(INPUTS)["$name"], EXPECTED)
'''
