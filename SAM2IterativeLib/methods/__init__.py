"""Published systems, one a file, whose name is the method's. Adding one touches nothing else but the words about it (``vocabulary``)."""

from __future__ import annotations

import importlib
import pkgutil

from ..errors import SettingsError
from .method import Method

_SHARED = ("method", "network_method", "training_set", "trial", "working_grid")


def method_names() -> tuple[str, ...]:
    """The methods that there are."""
    return tuple(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def load_method(name: str) -> type[Method]:
    """The class of a method; its file is imported only now.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in method_names():
        raise SettingsError(f"'{name}' is not a method.", where="method", cure=f"Known are: {', '.join(method_names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    found: type[Method] = module.METHOD
    return found
