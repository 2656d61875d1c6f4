"""A worker's messages, one after the other, for tests that talk to real child processes."""

from __future__ import annotations

import time
from collections import deque
from typing import TypeVar

from SAM2IterativeLib.messages import Message
from SAM2IterativeLib.worker_client import WorkerClient

Kind = TypeVar("Kind", bound=Message)


class Talk:
    """A client and the messages that were not asked for yet."""

    def __init__(self, client: WorkerClient) -> None:
        self.client = client
        self.passed: list[Message] = []
        """What came before the message that was waited for last."""
        self._waiting: deque[Message] = deque()

    def next(self, *kinds: type[Kind], seconds: float = 90) -> Kind:
        """The next message of one of these kinds.

        Raises:
            AssertionError: none came in time.
        """
        self.passed = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._waiting.extend(self.client.poll())
            while self._waiting:
                message = self._waiting.popleft()
                if isinstance(message, kinds):
                    return message
                self.passed.append(message)
            time.sleep(0.01)
        names = " or ".join(kind.__name__ for kind in kinds)
        raise AssertionError(f"no {names} came; before: {self.passed[-3:]}; standard error: {self.client.stderr_tail}")
