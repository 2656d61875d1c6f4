"""What may stand beside a parameter's type in ``Annotated[...]``, as in Slicer's parameterNodeWrapper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WithinRange:
    """A number within [minimum, maximum]."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        """Raise ValueError for a number outside."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within [{self.minimum}, {self.maximum}]")


@dataclass(frozen=True)
class Minimum:
    """A number of at least ``minimum``."""

    minimum: float

    def validate(self, value: Any) -> None:
        """Raise ValueError for a smaller number."""
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")


@dataclass(frozen=True)
class Maximum:
    """A number of at most ``maximum``."""

    maximum: float

    def validate(self, value: Any) -> None:
        """Raise ValueError for a larger number."""
        if value > self.maximum:
            raise ValueError(f"{value} is more than {self.maximum}")


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    choices: Any

    def validate(self, value: Any) -> None:
        """Raise ValueError for another value."""
        if value not in self.choices:
            raise ValueError(f"{value!r} is not one of {list(self.choices)}")


class NotNone:
    """Any value but None."""

    def validate(self, value: Any) -> None:
        """Raise ValueError for None."""
        if value is None:
            raise ValueError("value must not be None")


@dataclass(frozen=True)
class Default:
    """The value before anything was chosen."""

    value: Any


@dataclass(frozen=True)
class Decimals:
    """Digits that a spin box or slider shows."""

    value: int


@dataclass(frozen=True)
class SingleStep:
    """By how much a spin box or slider steps."""

    value: float
