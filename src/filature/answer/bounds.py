"""What of a usage is possible: the most that a request can have used. Nothing here knows prices."""

from filature.answer.usage import Usage


class UsageBounds:
    """Tokens of one request, over all its prompts and all its choices.

    A completion also has no more tokens than its answer had bytes.
    """

    __slots__ = ("completion", "prompt")

    def __init__(self, prompt: int, completion: int) -> None:
        self.prompt = prompt
        self.completion = completion


def within(usage: Usage, bounds: UsageBounds, payload_bytes: int) -> Usage:
    """What of ``usage`` is possible; ``usage`` itself if all of it is."""
    prompt, completion = usage.prompt, usage.completion
    most = min(bounds.completion, payload_bytes)
    if prompt <= bounds.prompt and completion <= most:
        return usage
    prompt, completion = min(prompt, bounds.prompt), min(completion, most)
    return Usage(
        prompt,
        min(usage.cached, prompt),
        completion,
        min(usage.reasoning, completion),
        usage.estimated,
    )
