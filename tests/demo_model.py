"""The demonstration model for tests: a real one, on this machine's CPU, where it is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from filature.demo.model import ModelBackend
from filature.demo.model_files import missing

MODEL_WAIT_S: Final = 120.0
"""On a busy machine; reaching it is a failure."""


@contextmanager
def loaded_model() -> Iterator[ModelBackend]:
    """Skips the test where the model is not installed."""
    lacking = missing()
    if lacking is not None:
        pytest.skip(f"no model: {lacking}")
    with pytest.MonkeyPatch.context() as environment:
        # One thread keeps its pace on a busy machine, where several wait for each other.
        environment.setenv("RAYON_NUM_THREADS", "1")
        loaded = ModelBackend.load()
        yield loaded
        assert loaded.close(MODEL_WAIT_S)
