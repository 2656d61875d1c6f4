"""What tests of whole rounds share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_projects import tiny_weights


@pytest.fixture
def one_thread() -> None:
    """So that the same run gives the same files: threads add up in another order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random weights of SAM2, see ``tiny_weights``."""
    return tiny_weights(tmp_path_factory.mktemp("weights"))
