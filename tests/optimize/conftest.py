from __future__ import annotations

import pytest
import torch

from asexlatent.descriptor import LocalEnvironment


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """The tensors here are small: threads only get into each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sp2() -> LocalEnvironment:
    return LocalEnvironment.named("sp2")
