"""The examples in the docstrings of every module."""

import doctest
import importlib
import warnings
from pathlib import Path

import pytest

import tickstate.kernels

HERE = Path(tickstate.kernels.__file__).resolve().parent
FOLDERS = {f"tickstate.{name}": HERE.parent / name for name in ("features", "kernels", "lake", "runners")}
FOLDERS["tickstate"] = HERE.parent / "api"
NAMES = sorted(
    f"{package}.{path.stem}".removesuffix(".__init__")
    for package, folder in FOLDERS.items()
    for path in folder.glob("*.py")
)


def examples_of(module):
    """Doctests of a module, of its functions and classes, and of what its kernels wrap."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = finder.find(module)
    for name, value in vars(module).items():
        function = getattr(value, "__wrapped__", None)
        if function is not None and getattr(function, "__module__", "") == module.__name__:
            tests += finder.find(function, f"{module.__name__}.{name}", globs=vars(module).copy())
    return [test for test in tests if test.examples]


def test_every_folder_has_modules():
    assert {name.rpartition(".")[0] for name in NAMES} >= set(FOLDERS) - {"tickstate"}
    assert {"tickstate", "tickstate._compute", "tickstate.kernels._jit", "tickstate.lake.names"} <= set(NAMES)


@pytest.mark.kernels
@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for test in {t.name: t for t in examples_of(module)}.values():
            runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_there_are_examples():
    found = sum(len(examples_of(importlib.import_module(name))) for name in NAMES)
    assert found >= 5
