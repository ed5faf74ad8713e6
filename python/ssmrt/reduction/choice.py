"""What a method of reduction chooses: the modes of each system, for any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .systems import Complex, Real


@dataclass(frozen=True)
class Modes:
    """Modes of one system: discrete poles of which each stands for itself and its conjugate, and their input gains."""

    mu: Complex  # (n,)
    b: Complex  # (n, d)


class Choice(Protocol):
    """The reduced systems of a layer, of every order."""

    @property
    def values(self) -> Real:
        """(S, n): what the choice goes by, the largest first."""

    @property
    def orders(self) -> list[int]:
        """The highest order of each system."""

    def states(self, modes: int) -> int:
        """The order that so many modes make."""

    def within(self, system: int, modes: int) -> Modes:
        """The best of so many stored modes at most."""

    def lost(self, system: int) -> Real:
        """(orders + 1,): what each order loses of the answers' power, about, from order 0 on."""

    def take(self, system: int, order: int) -> Modes:
        """That order."""
