"""Somebody who tells others what happens, on the main thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

News = TypeVar("News")


class Observable(Generic[News]):
    """Keeps the callbacks of those who want to know, in the order in which they came."""

    def __init__(self) -> None:
        self._observers: list[Callable[[News], object]] = []

    def observe(self, callback: Callable[[News], object]) -> None:
        """Call ``callback(news)`` with everything that is told from now on; once, however often this is asked."""
        if callback not in self._observers:
            self._observers.append(callback)

    def unobserve(self, callback: Callable[[News], object]) -> None:
        """Stop calling; harmless where it was not called."""
        if callback in self._observers:
            self._observers.remove(callback)

    def notify(self, news: News) -> None:
        """Tell everybody; who leaves or comes meanwhile counts from the next time on."""
        for callback in list(self._observers):
            callback(news)
