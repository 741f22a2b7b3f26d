"""Plugins that are not installed: entry points of ours, see the fixture ``plugins``."""

from __future__ import annotations

import types


class Point:
    """An entry point of a distribution that is not installed."""

    def __init__(self, name, loaded, package):
        self.name, self._loaded = name, loaded
        self.value = f"{package}:{name}"
        self.dist = types.SimpleNamespace(name=package)

    def load(self):
        if isinstance(self._loaded, BaseException):
            raise self._loaded
        return self._loaded
