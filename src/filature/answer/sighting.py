"""What one payload of an answer was, as the observer tells the side that writes. It reads nothing itself."""


class Sighting:
    """What one payload was."""

    __slots__ = (
        "choices",
        "content",
        "end_mark",
        "error",
        "final",
        "finish",
        "leaf",
        "usage",
        "usage_path",
    )

    def __init__(  # noqa: PLR0913 - each is something that may be seen
        self,
        *,
        content: bool = False,
        finish: bool = False,
        end_mark: bool = False,
        error: bool = False,
        usage: dict[str, object] | None = None,
        usage_path: tuple[str, ...] = ("usage",),
        final: bool = False,
        choices: int = 0,
        leaf: tuple[str, str] | None = None,
    ) -> None:
        self.content = content
        """It carried text, reasoning or tool deltas."""
        self.finish = finish
        """It finishes a choice (or Anthropic's message)."""
        self.end_mark = end_mark
        self.error = error
        self.usage = usage
        """The record it carried."""
        self.usage_path = usage_path
        """Where in the payload the record stands, or would stand."""
        self.final = final
        """Whether this is the place for the record that the cost goes into."""
        self.choices = choices
        self.leaf = leaf
        """The text and its member's name, if it is a single one."""
