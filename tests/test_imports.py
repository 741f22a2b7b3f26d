"""What importing costs: nothing heavy before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "numba",
    "llvmlite",
    "numpy",
    "pyarrow",
    "click",
    "rich",
    "msgspec",
    "xxhash",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "polars",
    "distributed",
    "filelock",
    "asyncio",
)


def loaded_by(code):
    """The heavy packages that a fresh Python has loaded after some code."""
    tail = f"\nimport sys, json\nsys.stderr.write(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stderr)


def test_import_tickstate_loads_nothing():
    assert loaded_by("import tickstate; tickstate.__all__; dir(tickstate)") == []


def test_the_version_loads_nothing():
    assert loaded_by("import tickstate; assert tickstate.__version__") == []


HELP = """
import sys
sys.argv = ["features", *{arguments!r}]
from tickstate.runners.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code
"""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plan", "--help"], ["--version"]])
def test_help_loads_click_alone(arguments):
    assert loaded_by(HELP.format(arguments=arguments)) == ["click"]


PLUGINS = """
import importlib.metadata, types, sys
from tickstate import Column, Feature, kernel, Block, Floats, Int

@kernel
def half(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[i] / 2

def point(i):
    made = type(f"P{i}", (Feature,), dict(name=f"plugin_{i}", group="p", inputs=("mid_price",), kernel=half,
                                          outputs=(Column(f"plugin_{i}", "1", "f"),)))
    return types.SimpleNamespace(name=f"p{i}", value="p", dist=types.SimpleNamespace(name="many"), load=lambda: made)

importlib.metadata.entry_points = lambda **chosen: [point(i) for i in range(100)]
"""


@pytest.mark.parametrize("arguments", [["list"], ["graph"], ["new", "fine", "--dir", "{tmp}/fine"]])
def test_listing_a_hundred_plugins_loads_neither_numba_nor_pyarrow(arguments, tmp_path):
    """What makes it quick; a kernel is compiled when it is called, and no file is read."""
    arguments = [a.format(tmp=tmp_path) for a in arguments]
    assert set(loaded_by(PLUGINS + HELP.format(arguments=arguments))) <= {"numpy", "click"}


def test_the_testing_module_loads_no_pytest_before_it_is_asked():
    code = "import tickstate.testing, sys; assert not {'pytest', 'hypothesis'} & set(sys.modules)"
    assert set(loaded_by(code)) <= {"numpy"}


def test_importing_numba_waits_for_a_kernel():
    """Plans, records and listings need none."""
    assert "numba" not in loaded_by("import tickstate; tickstate.run; tickstate.scan; tickstate.default_registry()")


def test_a_run_with_nothing_to_do_loads_nothing_to_compute_with(tmp_path):
    """Neither numba nor what reads Parquet: pyarrow's functions, the pandas that it looks for, locks (asyncio, ssl)."""
    import bronze

    lake = bronze.tiny()
    code = f'import tickstate; s = tickstate.run({str(lake)!r}, tier="silver"); assert s.up_to_date == 8'
    code += "; assert not s.computed"
    assert set(loaded_by(code)) == {"numpy", "pyarrow", "msgspec", "xxhash"}


def test_every_public_name_is_there():
    import tickstate

    assert set(tickstate.__all__) <= set(dir(tickstate))
    for name in tickstate.__all__:
        assert getattr(tickstate, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ran'"):
        _ = tickstate.ran
