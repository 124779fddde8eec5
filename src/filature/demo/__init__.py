"""An engine for those who have none: a small OpenAI-compatible server, for tests and first steps."""

from typing import Literal


def available_backend() -> tuple[Literal["model", "scripted"], str]:
    """What ``--backend auto`` takes, and why, in words for a person."""
    from filature.demo.model_files import missing  # noqa: PLC0415  # the command line's --help is quick

    lacking = missing()
    if lacking is None:
        return "model", "SmolLM2-135M-Instruct, a small real model, on this machine's CPU"
    return "scripted", f"scripted text, not a model: {lacking}"
