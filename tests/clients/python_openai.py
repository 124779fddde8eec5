"""The openai package of Python as it is used; the other SDKs are elsewhere."""

import asyncio
import json
from typing import Any

import openai
from ask import WEATHER_CALL, WEATHER_TOOL, Ask, Seen, SeenError, Traits

API_KEY = "sk-test"
TIMEOUT_S = 20.0
FUNCTION_TOOL: dict[str, Any] = {"type": "function", "function": dict(WEATHER_TOOL)}
RESPONSES_TOOL: dict[str, Any] = {"type": "function", "strict": True, **WEATHER_TOOL}


def seen_error(error: Exception) -> SeenError:
    """What an application can read off an exception of these SDKs."""
    code = getattr(error, "code", None)
    return SeenError(
        kind=type(error).__name__,
        message=str(error),
        status=getattr(error, "status_code", None),
        code=None if code is None else str(code),
    )


def count_attempts(seen: Seen) -> dict[str, list[Any]]:
    """Event hooks for a synchronous HTTP client that count its requests."""

    def on_request(_request: object) -> None:
        seen.attempts += 1

    return {"request": [on_request]}


def count_attempts_async(seen: Seen) -> dict[str, list[Any]]:
    """The same for an asynchronous client."""

    async def on_request(_request: object) -> None:
        seen.attempts += 1

    return {"request": [on_request]}


def _client(base_url: str, ask: Ask, seen: Seen) -> openai.OpenAI:
    http_client = openai.DefaultHttpxClient(event_hooks=count_attempts(seen))
    return openai.OpenAI(
        base_url=base_url,
        api_key=API_KEY,
        max_retries=ask.max_retries,
        timeout=TIMEOUT_S,
        http_client=http_client,
    )


def _async_client(base_url: str, ask: Ask, seen: Seen) -> openai.AsyncOpenAI:
    http_client = openai.DefaultAsyncHttpxClient(event_hooks=count_attempts_async(seen))
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=API_KEY,
        max_retries=ask.max_retries,
        timeout=TIMEOUT_S,
        http_client=http_client,
    )


def chat_messages(ask: Ask) -> list[dict[str, Any]]:
    """The conversation so far, in the dialect of chat completions."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": ask.prompt}]
    if ask.tool_result is not None:
        function = {
            "name": WEATHER_TOOL["name"],
            "arguments": json.dumps(WEATHER_CALL["arguments"]),
        }
        call = {"id": WEATHER_CALL["id"], "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": ask.tool_result},
        ]
    return messages


def _chat_arguments(ask: Ask) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": ask.model,
        "messages": chat_messages(ask),
    }
    if ask.tools:
        arguments["tools"] = [FUNCTION_TOOL]
    if ask.invalid:
        arguments["temperature"] = -1
    return arguments


def _usage_arguments(ask: Ask) -> dict[str, Any]:
    return {"stream_options": {"include_usage": True}} if ask.usage else {}


class _ToolCalls:
    """Puts streamed pieces of tool calls together, by index."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}

    def add(self, index: int, name: str | None, arguments: str | None) -> None:
        parts = self._parts.setdefault(index, ["", ""])
        parts[0] += name or ""
        parts[1] += arguments or ""

    def whole(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "arguments": json.loads(arguments)}
            for _, (name, arguments) in sorted(self._parts.items())
        ]


class _ChatChunks:
    """Reads chat chunks into ``Seen``; used by the sync client, where nothing else adds them up."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._calls = _ToolCalls()

    def add(self, chunk: Any) -> None:
        seen = self._seen
        seen.without_choices += not chunk.choices
        if chunk.usage is not None:
            seen.usage = chunk.usage.to_dict()
        for choice in chunk.choices:
            if choice.delta.content:
                seen.text += choice.delta.content
                seen.pieces += 1
            for call in choice.delta.tool_calls or ():
                self._calls.add(call.index, call.function.name, call.function.arguments)
                seen.pieces += 1
            seen.finish = choice.finish_reason or seen.finish

    def end(self) -> None:
        self._seen.tool_calls = self._calls.whole()


def _read_chat(seen: Seen, completion: Any) -> None:
    choice = completion.choices[0]
    seen.text = choice.message.content or ""
    seen.finish = choice.finish_reason
    seen.usage = completion.usage.to_dict() if completion.usage else {}
    seen.tool_calls = [
        {"name": call.function.name, "arguments": json.loads(call.function.arguments)}
        for call in choice.message.tool_calls or ()
    ]


class OpenAIChat:
    """``client.chat.completions.create``, plain iteration."""

    traits = Traits("openai chat", "Python", "openai", "chat")

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        with _client(base_url, ask, seen) as client:
            try:
                if ask.stream:
                    self._stream(client, ask, seen)
                else:
                    _read_chat(seen, client.chat.completions.create(**_chat_arguments(ask)))
            except openai.OpenAIError as error:
                seen.error = seen_error(error)
        return seen

    def _stream(self, client: openai.OpenAI, ask: Ask, seen: Seen) -> None:
        chunks = _ChatChunks(seen)
        with client.chat.completions.create(
            **_chat_arguments(ask), **_usage_arguments(ask), stream=True
        ) as stream:
            for chunk in stream:
                chunks.add(chunk)
                if ask.stop_after and seen.pieces >= ask.stop_after:
                    return
        chunks.end()


class OpenAIChatAsync:
    """``AsyncOpenAI`` with the accumulating helper ``client.chat.completions.stream``."""

    traits = Traits("openai chat, async", "Python", "openai", "chat")

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        asyncio.run(self._ask(base_url, ask, seen))
        return seen

    async def _ask(self, base_url: str, ask: Ask, seen: Seen) -> None:
        async with _async_client(base_url, ask, seen) as client:
            try:
                if ask.stream:
                    await self._stream(client, ask, seen)
                else:
                    _read_chat(seen, await client.chat.completions.create(**_chat_arguments(ask)))
            except openai.OpenAIError as error:
                seen.error = seen_error(error)

    async def _stream(self, client: openai.AsyncOpenAI, ask: Ask, seen: Seen) -> None:
        arguments = _chat_arguments(ask)
        if ask.tools:  # the helper insists on strict tools, as it parses their arguments
            arguments["tools"] = [
                {"type": "function", "function": {**WEATHER_TOOL, "strict": True}}
            ]
        async with client.chat.completions.stream(**arguments, **_usage_arguments(ask)) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    seen.text += event.delta
                    seen.pieces += bool(event.delta)
                elif event.type == "tool_calls.function.arguments.delta":
                    seen.pieces += 1
                if ask.stop_after and seen.pieces >= ask.stop_after:
                    return
            _read_chat(seen, await stream.get_final_completion())


class OpenAICompletions:
    """``client.completions.create``: the older dialect, which has no tools."""

    traits = Traits("openai completions", "Python", "openai", "completions", tools=False)

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        extra: dict[str, Any] = {"temperature": -1} if ask.invalid else {}
        with _client(base_url, ask, seen) as client:
            try:
                if not ask.stream:
                    whole = client.completions.create(model=ask.model, prompt=ask.prompt, **extra)
                    self._add(seen, whole)
                    return seen
                with client.completions.create(
                    model=ask.model,
                    prompt=ask.prompt,
                    stream=True,
                    **_usage_arguments(ask),
                    **extra,
                ) as stream:
                    for chunk in stream:
                        self._add(seen, chunk)
                        if ask.stop_after and seen.pieces >= ask.stop_after:
                            break
            except openai.OpenAIError as error:
                seen.error = seen_error(error)
        return seen

    @staticmethod
    def _add(seen: Seen, completion: Any) -> None:
        seen.without_choices += not completion.choices
        if completion.usage is not None:
            seen.usage = completion.usage.to_dict()
        for choice in completion.choices:
            seen.text += choice.text
            seen.pieces += bool(choice.text)
            seen.finish = choice.finish_reason or seen.finish


def _responses_input(ask: Ask) -> str | list[dict[str, Any]]:
    if ask.tool_result is None:
        return ask.prompt
    call_id = WEATHER_CALL["id"]
    return [
        {"role": "user", "content": ask.prompt},
        {
            "type": "function_call",
            "call_id": call_id,
            "name": WEATHER_TOOL["name"],
            "arguments": json.dumps(WEATHER_CALL["arguments"]),
        },
        {"type": "function_call_output", "call_id": call_id, "output": ask.tool_result},
    ]


def _responses_arguments(ask: Ask) -> dict[str, Any]:
    arguments: dict[str, Any] = {"model": ask.model, "input": _responses_input(ask)}
    if ask.tools:
        arguments["tools"] = [RESPONSES_TOOL]
    if ask.invalid:
        arguments["temperature"] = -1
    return arguments


def _read_response(seen: Seen, response: Any) -> None:
    seen.text = response.output_text
    seen.finish = response.status
    seen.usage = response.usage.to_dict() if response.usage else {}
    seen.tool_calls = [
        {"name": item.name, "arguments": json.loads(item.arguments)}
        for item in response.output
        if item.type == "function_call"
    ]


def _add_response_event(seen: Seen, event: Any) -> None:
    if event.type == "response.output_text.delta":
        seen.text += event.delta
        seen.pieces += 1
    elif event.type == "response.function_call_arguments.delta":
        seen.pieces += 1
    elif event.type == "response.completed":
        text = seen.text
        _read_response(seen, event.response)
        assert seen.text == text, "the final response differs from the deltas"


class OpenAIResponses:
    """``client.responses.create``, plain iteration."""

    traits = Traits("openai responses", "Python", "openai", "responses")

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        with _client(base_url, ask, seen) as client:
            try:
                if not ask.stream:
                    _read_response(seen, client.responses.create(**_responses_arguments(ask)))
                    return seen
                with client.responses.create(**_responses_arguments(ask), stream=True) as stream:
                    for event in stream:
                        _add_response_event(seen, event)
                        if ask.stop_after and seen.pieces >= ask.stop_after:
                            break
            except openai.OpenAIError as error:
                seen.error = seen_error(error)
        return seen


class OpenAIResponsesAsync:
    """``AsyncOpenAI`` with the accumulating helper ``client.responses.stream``."""

    traits = Traits("openai responses, async", "Python", "openai", "responses")

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        asyncio.run(self._ask(base_url, ask, seen))
        return seen

    async def _ask(self, base_url: str, ask: Ask, seen: Seen) -> None:
        async with _async_client(base_url, ask, seen) as client:
            try:
                if not ask.stream:
                    whole = await client.responses.create(**_responses_arguments(ask))
                    _read_response(seen, whole)
                    return
                async with client.responses.stream(**_responses_arguments(ask)) as stream:
                    async for event in stream:
                        _add_response_event(seen, event)
                        if ask.stop_after and seen.pieces >= ask.stop_after:
                            return
                    await stream.get_final_response()
            except openai.OpenAIError as error:
                seen.error = seen_error(error)


class OpenAIEmbeddingsClient:
    """``client.embeddings.create``: never a stream."""

    traits = Traits(
        "openai embeddings", "Python", "openai", "embeddings", streams=False, tools=False
    )

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        with _client(base_url, ask, seen) as client:
            try:
                answer = client.embeddings.create(
                    model=ask.model, input=[] if ask.invalid else ask.prompt
                )
                seen.vector = len(answer.data[0].embedding)
                seen.usage = answer.usage.to_dict()
            except openai.OpenAIError as error:
                seen.error = seen_error(error)
        return seen
