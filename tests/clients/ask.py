"""What a client test asks of an SDK and what it saw; nothing here knows any SDK or the chain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

WEATHER_TOOL: Mapping[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
"""The one tool that is offered: name, description and JSON schema, which every dialect wraps."""


WEATHER_CALL: Mapping[str, Any] = {"id": "call_1", "arguments": {"city": "Lyon"}}
"""The call that a tool's result answers."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request through one SDK, in terms that all dialects have."""

    model: str
    prompt: str = "Tell me about silk."
    stream: bool = False
    tools: bool = False
    """Offer the one tool; the engine then calls it."""
    tool_result: str | None = None
    """Go on after a call of the tool that gave this."""
    invalid: bool = False
    """Say something that must be refused with 400 before an engine is asked."""
    stop_after: int | None = None
    """Leave the stream after this many pieces of text."""
    usage: bool = True
    """Ask for the usage in a stream of chat or completions; elsewhere it is always there."""
    max_retries: int = 0
    """Of the SDK's own."""


@dataclass(slots=True)
class SeenError:
    """An error as the SDK raised it; ``kind`` is its class, or ``event`` where none is raised."""

    kind: str
    message: str
    status: int | None = None
    code: str | None = None


@dataclass(slots=True)
class Seen:
    """What came out of the SDK. ``usage`` is as the SDK exposes it, in the dialect's names."""

    text: str = ""
    pieces: int = 0
    """Deltas of text, or of tool arguments, that were handed out one by one."""
    without_choices: int = 0
    """Chunks of chat or completions whose ``choices`` is empty, where the SDK shows chunks."""
    finish: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """Each ``{"name": str, "arguments": dict}``."""
    vector: int = 0
    """Dimensions of the embedding."""
    error: SeenError | None = None
    attempts: int = 0
    """HTTP requests that the SDK sent."""

    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens, by either family's names."""
        usage = self.usage
        prompt = usage.get("prompt_tokens", usage.get("input_tokens", usage.get("inputTokens", 0)))
        completion = usage.get(
            "completion_tokens", usage.get("output_tokens", usage.get("outputTokens", 0))
        )
        return int(prompt or 0), int(completion or 0)


@dataclass(frozen=True, slots=True)
class Traits:
    """What an entry point can do and shows, so that a cell is tested or says why not."""

    name: str
    language: str
    package: str
    dialect: str
    streams: bool = True
    tools: bool = True
    unary: bool = True
    shows_cost: tuple[str, ...] = ("stream", "unary")
    """In which of these the SDK lets members of ``usage`` through that it does not know."""
    asks_for_usage: bool = False
    """It asks for the usage in a stream whether the application wants it or not."""
    raises: bool = True
    """False: a bare event parser, which hands an error over as an event."""
    retries: bool = True
    """Whether it sends a request again by itself when the answer says that this may help."""
    refuses: bool = True
    """False: it offers no way to say something that we refuse."""


class Sdk(Protocol):
    """One entry point of one SDK."""

    traits: Traits

    def ask(self, base_url: str, ask: Ask) -> Seen:
        """Send ``ask`` to ``base_url`` (ending in ``/v1``). An SDK's error is seen, not raised."""
        ...
