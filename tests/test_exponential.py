"""The exponential of ``kernels/exponential.py``: against exact decimals, and the same bits compiled and interpreted."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickstate.features.checking import interpreting
from tickstate.kernels import exponential
from tickstate.kernels._jit import OutFloats, kernel

pytestmark = pytest.mark.kernels


@kernel
def exponentials(x: OutFloats, out: OutFloats) -> None:
    exponential.fill_exponentials(x, out)


def exp_of(*values):
    out = np.empty(len(values))
    exponentials(np.array(values, float), out)
    return out


def ulps_off(x, found):
    """How many units in the last place of the true value it is away from it."""
    with localcontext() as context:
        context.prec = 60
        true = Decimal(x).exp()
        return abs(Decimal(float(found)) - true) / Decimal(float(np.spacing(float(true))))


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
    with interpreting():
        slow = exp_of(*x)
    np.testing.assert_array_equal(exp_of(*x), slow)
