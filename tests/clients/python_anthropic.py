"""The anthropic package of Python as it is used: the sync client raw, the async one by its helper."""

import asyncio
import json
from typing import Any

import anthropic
from ask import WEATHER_CALL, WEATHER_TOOL, Ask, Seen, Traits
from python_openai import (
    API_KEY,
    TIMEOUT_S,
    count_attempts,
    count_attempts_async,
    seen_error,
)


def _client_arguments(base_url: str, ask: Ask) -> dict[str, Any]:
    return {
        "base_url": base_url.removesuffix("/v1"),
        "api_key": API_KEY,
        "max_retries": ask.max_retries,
        "timeout": TIMEOUT_S,
    }


def _messages(ask: Ask) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": ask.prompt}]
    if ask.tool_result is not None:
        call = {
            "type": "tool_use",
            "id": WEATHER_CALL["id"],
            "name": WEATHER_TOOL["name"],
            "input": WEATHER_CALL["arguments"],
        }
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": ask.tool_result}
        messages += [
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
    return messages


def _message_arguments(ask: Ask) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": ask.model,
        "max_tokens": 4096,
        "messages": _messages(ask),
    }
    if ask.tools:
        arguments["tools"] = [
            {
                "name": WEATHER_TOOL["name"],
                "description": WEATHER_TOOL["description"],
                "input_schema": WEATHER_TOOL["parameters"],
            }
        ]
    if ask.invalid:
        arguments["extra_body"] = {"temperature": -1}
    return arguments


def _read_message(seen: Seen, message: Any) -> None:
    seen.text = "".join(block.text for block in message.content if block.type == "text")
    seen.finish = message.stop_reason
    seen.usage |= message.usage.to_dict()
    seen.tool_calls = [
        {"name": block.name, "arguments": block.input}
        for block in message.content
        if block.type == "tool_use"
    ]


class AnthropicMessages:
    """``client.messages.create(stream=True)``: the raw events."""

    traits = Traits("anthropic", "Python", "anthropic", "messages")

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        http_client = anthropic.DefaultHttpxClient(event_hooks=count_attempts(seen))
        with anthropic.Anthropic(
            **_client_arguments(base_url, ask), http_client=http_client
        ) as client:
            try:
                if ask.stream:
                    self._stream(client, ask, seen)
                else:
                    _read_message(seen, client.messages.create(**_message_arguments(ask)))
            except anthropic.AnthropicError as error:
                seen.error = seen_error(error)
        return seen

    def _stream(self, client: anthropic.Anthropic, ask: Ask, seen: Seen) -> None:
        tools: dict[int, list[str]] = {}
        ended = False
        with client.messages.create(**_message_arguments(ask), stream=True) as stream:
            for event in stream:
                if event.type == "message_start":
                    seen.usage = event.message.usage.to_dict()
                elif event.type == "content_block_start" and event.content_block.type == "tool_use":
                    tools[event.index] = [event.content_block.name, ""]
                elif event.type == "content_block_delta":
                    self._add_delta(seen, tools, event)
                elif event.type == "message_delta":
                    seen.finish = event.delta.stop_reason
                    seen.usage |= event.usage.to_dict()
                elif event.type == "message_stop":
                    ended = True
                if ask.stop_after and seen.pieces >= ask.stop_after:
                    return
        assert ended, "no message_stop, and no error"
        seen.tool_calls = [
            {"name": name, "arguments": json.loads(arguments)} for name, arguments in tools.values()
        ]

    @staticmethod
    def _add_delta(seen: Seen, tools: dict[int, list[str]], event: Any) -> None:
        if event.delta.type == "text_delta":
            seen.text += event.delta.text
            seen.pieces += bool(event.delta.text)
        elif event.delta.type == "input_json_delta":
            tools[event.index][1] += event.delta.partial_json
            seen.pieces += bool(event.delta.partial_json)


class AnthropicMessagesAsync:
    """``AsyncAnthropic`` with the accumulating helper ``client.messages.stream``."""

    traits = Traits("anthropic, async", "Python", "anthropic", "messages", shows_cost=("unary",))

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        asyncio.run(self._ask(base_url, ask, seen))
        return seen

    async def _ask(self, base_url: str, ask: Ask, seen: Seen) -> None:
        http_client = anthropic.DefaultAsyncHttpxClient(event_hooks=count_attempts_async(seen))
        async with anthropic.AsyncAnthropic(
            **_client_arguments(base_url, ask), http_client=http_client
        ) as client:
            try:
                if not ask.stream:
                    _read_message(seen, await client.messages.create(**_message_arguments(ask)))
                    return
                async with client.messages.stream(**_message_arguments(ask)) as stream:
                    async for event in stream:
                        if event.type == "text":
                            seen.text += event.text
                            seen.pieces += 1
                        elif event.type == "input_json":
                            seen.pieces += bool(event.partial_json)
                        if ask.stop_after and seen.pieces >= ask.stop_after:
                            return
                    _read_message(seen, await stream.get_final_message())
            except anthropic.AnthropicError as error:
                seen.error = seen_error(error)
