"""Actions of a person, run so that what goes wrong is told in a sentence."""

from __future__ import annotations

from collections.abc import Callable

import slicer.util

from SAM2IterativeLib.errors import SAM2IterativeError


def guarded(action: Callable[[], object], message: str = "") -> bool:
    """Run an action under the wait cursor. What we expect to go wrong is shown as its sentence; a fault of ours with its traceback.

    Args:
        action: what to do.
        message: what could not be done, in a sentence.

    Returns:
        Whether it went well.
    """
    try:
        with slicer.util.tryWithErrorDisplay(message, show=False, waitCursor=True):
            action()
    except SAM2IterativeError as error:
        slicer.util.errorDisplay(f"{message}\n\n{error.sentence}" if message else error.sentence)
        return False
    except Exception as error:  # shown, and raised for Slicer's log
        slicer.util.errorDisplay(f"{message}\n\n{error}" if message else str(error))
        raise
    return True
