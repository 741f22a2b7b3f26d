"""tickstate: market-data Parquet to microstructure features, the same bytes whatever way they are run.

>>> import tickstate
>>> sorted(tickstate.__all__)[:3]
['BarColumn', 'BarColumns', 'BarRule']

Importing this loads neither numba nor pyarrow; the names below load what they need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "run": "tickstate._run",
    "Summary": "tickstate.runners.run",
    "compute": "tickstate._compute",
    "bars": "tickstate._bars",
    "scan": "tickstate._scan",
    "Feature": "tickstate.features.base",
    "BarRule": "tickstate.features.bars",
    "BarColumns": "tickstate.features.barcolumns",
    "BarColumn": "tickstate.features.barcolumns",
    "Threshold": "tickstate.features.bars",
    "Column": "tickstate.features.base",
    "Lookback": "tickstate.features.base",
    "Param": "tickstate.features.base",
    "Settings": "tickstate.features.base",
    "FeatureError": "tickstate.features.base",
    "TickstateError": "tickstate.kernels.errors",
    "LakeError": "tickstate.lake.errors",
    "Registry": "tickstate.features.registry",
    "default_registry": "tickstate.features.registry",
    "kernel": "tickstate.kernels._jit",
    "helper": "tickstate.kernels._jit",
    **dict.fromkeys(
        ("Int", "Float", "Ints", "Floats", "Levels", "OutFloats", "Block", "State"), "tickstate.kernels._jit"
    ),
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tickstate")
    if name not in _PLACES:
        raise AttributeError(f"module 'tickstate' has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
