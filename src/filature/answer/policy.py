"""What the client asked for and how the answer is shown to it, as data."""

from dataclasses import dataclass
from typing import Literal

from filature.answer.pricing import Tariff


@dataclass(frozen=True, slots=True)
class AnswerPolicy:
    """How an answer is shown. The default forwards everything and adds nothing."""

    strip: bool = False
    """Take out what the client did not ask for. Chat and completions streams only."""
    include_usage: bool = False
    """The client asked for ``stream_options.include_usage``."""
    continuous_usage: bool = False
    """The client asked for ``stream_options.continuous_usage_stats``."""
    when_unrequested: Literal["comment", "hide", "send"] = "comment"
    """What becomes of the usage when the client did not ask for it (and ``strip`` is set)."""
    hold_until_content: bool = False
    """Keep content-free events back until the first content, so that a retry stays possible."""
    tariff: Tariff | None = None
    """Prices; None: no cost is shown."""
    errors: Literal["take", "pass"] = "take"
    """``take``: an error frame ends what is handed out, and the caller writes its own.
    ``pass``: it leaves as it came."""

    @property
    def shows_usage(self) -> bool:
        """Whether the client gets a usage chunk of its own."""
        return self.include_usage or self.when_unrequested == "send"
