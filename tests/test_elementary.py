"""``kernels/elementary.py``: against exact decimals; the same bits compiled and interpreted; no kernel calls others."""

import ast
import importlib
import inspect
import math
import textwrap
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickstate.features.checking import interpreting
from tickstate.kernels import _jit, elementary
from tickstate.kernels._jit import Floats, OutFloats, OutLevels, kernel

pytestmark = pytest.mark.kernels


@kernel
def exponentials(x: OutFloats, out: OutFloats) -> None:
    elementary.fill_exponentials(x, out)


@kernel
def logs_and_powers(x: Floats, out: OutLevels) -> None:
    for i in range(x.shape[0]):
        out[0, i] = elementary.log(x[i])
        out[1, i] = elementary.exp2(x[i])


def log_and_exp2_of(*values):
    """[0]: ln(x), [1]: 2^x."""
    out = np.empty((2, len(values)))
    logs_and_powers(np.array(values, float), out)
    return out


def exp_of(*values):
    out = np.empty(len(values))
    exponentials(np.array(values, float), out)
    return out


def ulps_off(x, found, function=Decimal.exp):
    """How many units in the last place of the true value it is away from it."""
    with localcontext() as context:
        context.prec = 60
        true = function(Decimal(float(x)))
        return abs(Decimal(float(found)) - true) / Decimal(float(np.spacing(abs(float(true))) or 1.0))


def power_of_2(x):
    return (x * Decimal(2).ln()).exp()


@given(x=st.lists(st.floats(-708.0, 0.0), min_size=1, max_size=40))
def test_it_is_right_to_one_unit(x):
    assert all(ulps_off(a, b) <= 1 for a, b in zip(x, exp_of(*x), strict=True))


def test_ends():
    assert exp_of(0.0, -0.0, -5e-324, -708.5, -1e9, -np.inf, np.nan).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert 0.0 < exp_of(-708.0)[0] < 1e-307


def test_halves_of_ln_2():
    """Where the reduction goes over to the next power of 2."""
    near = [np.nextafter(-np.log(2.0) * (k + 0.5), side) for k in range(40) for side in (-np.inf, np.inf)]
    assert all(ulps_off(a, b) <= 1 for a, b in zip(near, exp_of(*near), strict=True))


def test_compiled_and_interpreted_are_the_same_bits():
    x = -np.random.default_rng(1).exponential(20.0, 500)
    ratios = np.exp(np.random.default_rng(2).normal(0.0, 1.0, 500)) - 0.1
    with interpreting():
        slow, slow_logs = exp_of(*x), log_and_exp2_of(*ratios)
    np.testing.assert_array_equal(exp_of(*x), slow)
    np.testing.assert_array_equal(log_and_exp2_of(*ratios), slow_logs)


RATIOS = st.floats(0.0, exclude_min=True, allow_infinity=False) | st.floats(0.5, 2.0) | st.floats(1 - 1e-6, 1 + 1e-6)


@given(x=st.lists(RATIOS, min_size=1, max_size=40))
def test_logarithms_are_right_to_one_unit(x):
    assert all(ulps_off(a, b, Decimal.ln) <= 1 for a, b in zip(x, log_and_exp2_of(*x)[0], strict=True))


@given(x=st.lists(st.floats(-1021.0, 1023.99) | st.floats(-5.0, 0.0), min_size=1, max_size=40))
def test_powers_of_2_are_right_to_one_unit(x):
    assert all(ulps_off(a, b, power_of_2) <= 1 for a, b in zip(x, log_and_exp2_of(*x)[1], strict=True))


def test_ends_of_logarithms_and_powers():
    inf, nan = np.inf, np.nan
    logs, powers = log_and_exp2_of(0.0, -0.0, 1.0, inf, -1.0, -inf, nan, 1024.0, -1076.0, -1074.0, 3.0)
    np.testing.assert_array_equal(logs[:7], [-inf, -inf, 0.0, inf, nan, nan, nan])
    np.testing.assert_array_equal(powers, [1.0, 1.0, 2.0, inf, 0.5, 0.0, nan, inf, 0.0, 5e-324, 8.0])
    roots = [np.nextafter(root * 2.0**k, side) for root in (2**0.5, 2**-0.5) for k in (0, 7, -7) for side in (0, inf)]
    assert all(ulps_off(a, b, Decimal.ln) <= 1 for a, b in zip(roots, log_and_exp2_of(*roots)[0], strict=True))


OTHERS = {
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "pow",
    "power",
    "hypot",
    "cbrt",
    "sin",
    "cos",
    "tanh",
}


def test_no_kernel_calls_a_librarys_exp_or_log_or_power():
    """Which would be other bits on another machine, or beside Intel's SVML: found so in an environment that has it."""
    files = {str(path) for path in Path(elementary.__file__).parent.glob("[!_]*.py")}
    for file in files:
        importlib.import_module(f"tickstate.kernels.{Path(file).stem}")
    ours = [k for k in _jit.ALL.values() if k.function.__code__.co_filename in files]
    assert len(ours) > 50
    assert {k.__name__: found for k in ours if (found := library_calls(k.function))} == {}
    assert library_calls(others) == ["math.exp", "x ** 2", "np.log2"]


def others(x):
    return math.exp(x) + x**2 + np.log2(x)


def library_calls(function):
    """Where a function calls one of ``OTHERS``, or raises to a power (a whole one numba multiplies)."""
    found = []
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Attribute) and node.attr in OTHERS and ast.unparse(node.value) in ("math", "np"):
            found.append(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            found.append(node)
    return [ast.unparse(node) for node in sorted(found, key=lambda node: node.col_offset)]
