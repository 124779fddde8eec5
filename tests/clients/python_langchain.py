"""The langchain-openai package of Python, which asks by the openai package."""

from collections.abc import Iterator
from typing import Any

import openai
from ask import WEATHER_CALL, WEATHER_TOOL, Ask, Seen, Traits
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from python_openai import API_KEY, FUNCTION_TOOL, TIMEOUT_S, count_attempts, seen_error


def _messages(ask: Ask) -> list[BaseMessage]:
    messages: list[BaseMessage] = [HumanMessage(ask.prompt)]
    if ask.tool_result is not None:
        call = tool_call(
            name=WEATHER_TOOL["name"], args=WEATHER_CALL["arguments"], id=WEATHER_CALL["id"]
        )
        messages += [
            AIMessage("", tool_calls=[call]),
            ToolMessage(ask.tool_result, tool_call_id=call["id"]),
        ]
    return messages


class LangChainChat:
    """``ChatOpenAI`` on chat completions, or on the Responses API."""

    def __init__(self, *, responses: bool) -> None:
        self._responses = responses
        # LangChain keeps the raw usage of a unary chat completion only; elsewhere it maps it to
        # names of its own and drops what it does not know.
        self.traits = Traits(
            "langchain-openai " + ("responses" if responses else "chat"),
            "Python",
            "langchain-openai",
            "responses" if responses else "chat",
            shows_cost=() if responses else ("unary",),
        )

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        with openai.DefaultHttpxClient(event_hooks=count_attempts(seen)) as http_client:
            model = ChatOpenAI(
                base_url=base_url,
                api_key=API_KEY,
                model=ask.model,
                max_retries=ask.max_retries,
                timeout=TIMEOUT_S,
                temperature=-1 if ask.invalid else None,
                stream_usage=ask.usage,
                use_responses_api=self._responses,
                http_client=http_client,
                http_async_client=openai.DefaultAsyncHttpxClient(),
            )
            runnable = model.bind_tools([FUNCTION_TOOL]) if ask.tools else model
            try:
                if ask.stream:
                    self._stream(runnable.stream(_messages(ask)), ask, seen)
                else:
                    self._read(seen, runnable.invoke(_messages(ask)))
            except (openai.OpenAIError, ValueError) as error:
                seen.error = seen_error(error)
        return seen

    def _stream(self, chunks: Iterator[Any], ask: Ask, seen: Seen) -> None:
        whole: AIMessageChunk | None = None
        for chunk in chunks:
            whole = chunk if whole is None else whole + chunk
            seen.pieces += bool(chunk.text or chunk.tool_call_chunks)
            seen.text += chunk.text
            if ask.stop_after and seen.pieces >= ask.stop_after:
                chunks.close()  # type: ignore[attr-defined]  # a generator, typed as an iterator
                return
        assert whole is not None
        self._read(seen, whole)

    @staticmethod
    def _read(seen: Seen, message: Any) -> None:
        seen.text = message.text
        seen.finish = message.response_metadata.get(
            "finish_reason", message.response_metadata.get("status")
        )
        seen.usage = {
            **message.response_metadata.get("token_usage", {}),
            **(message.usage_metadata or {}),
        }
        seen.tool_calls = [
            {"name": call["name"], "arguments": call["args"]} for call in message.tool_calls
        ]


class LangChainEmbeddings:
    """``OpenAIEmbeddings``; it shows no usage."""

    traits = Traits(
        "langchain-openai embeddings",
        "Python",
        "langchain-openai",
        "embeddings",
        streams=False,
        tools=False,
        shows_cost=(),
    )

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen()
        with openai.DefaultHttpxClient(event_hooks=count_attempts(seen)) as http_client:
            model = OpenAIEmbeddings(
                base_url=base_url,
                api_key=API_KEY,
                model=ask.model,
                max_retries=ask.max_retries,
                check_embedding_ctx_length=False,  # else it counts tokens with a downloaded table
                model_kwargs={"encoding_format": "nonsense"} if ask.invalid else {},
                http_client=http_client,
            )
            try:
                seen.vector = len(model.embed_query(ask.prompt))
            except openai.OpenAIError as error:
                seen.error = seen_error(error)
        return seen
