"""The base of errors for people. It stands here because every other part may import kernels."""

from __future__ import annotations


class TickstateError(Exception):
    """A mistake that a user can mend: what was got, where, what was expected and what to do."""

    def __init__(self, got: str, *, where: str = "", expected: str = "", fix: str = "") -> None:
        self.got, self.where, self.expected, self.fix = got, where, expected, fix
        parts = [f"{where}: {got}" if where else got]
        parts += [f"expected {expected}"] if expected else []
        parts += [fix] if fix else []
        super().__init__("; ".join(parts))
