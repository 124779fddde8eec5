"""httpx with httpx-sse: an application that reads the event stream itself, without an SDK."""

import json
from typing import Any

import httpx
from ask import WEATHER_TOOL, Ask, Seen, SeenError, Traits
from httpx_sse import connect_sse
from python_openai import API_KEY, TIMEOUT_S, chat_messages


class HttpxSse:
    """Chat completions by hand. An error inside the stream arrives as an event."""

    traits = Traits("httpx-sse", "Python", "httpx-sse", "chat", raises=False, retries=False)

    def ask(self, base_url: str, ask: Ask) -> Seen:
        seen = Seen(attempts=1)
        body: dict[str, Any] = {
            "model": ask.model,
            "messages": chat_messages(ask),
        }
        if ask.tools:
            body["tools"] = [{"type": "function", "function": dict(WEATHER_TOOL)}]
        if ask.invalid:
            body["temperature"] = -1
        url = base_url + "/chat/completions"
        headers = {"authorization": f"Bearer {API_KEY}"}
        with httpx.Client(timeout=TIMEOUT_S, headers=headers) as client:
            if ask.stream:
                self._stream(client, url, body, ask, seen)
            else:
                answer = client.post(url, json=body)
                if answer.is_error:
                    self._refused(seen, answer)
                else:
                    self._read(seen, answer.json())
        return seen

    def _stream(
        self, client: httpx.Client, url: str, body: dict[str, Any], ask: Ask, seen: Seen
    ) -> None:
        body["stream"] = True
        if ask.usage:
            body["stream_options"] = {"include_usage": True}
        calls: dict[int, dict[str, str]] = {}
        with connect_sse(client, "POST", url, json=body) as source:
            if source.response.is_error:
                source.response.read()
                self._refused(seen, source.response)
                return
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    break
                chunk = event.json()
                if "error" in chunk:
                    seen.error = SeenError(
                        "event", chunk["error"]["message"], None, chunk["error"]["code"]
                    )
                    return
                self._add(seen, calls, chunk)
                if ask.stop_after and seen.pieces >= ask.stop_after:
                    return
        seen.tool_calls = [
            {"name": call["name"], "arguments": json.loads(call["arguments"])}
            for call in calls.values()
        ]

    @staticmethod
    def _refused(seen: Seen, answer: httpx.Response) -> None:
        error = answer.json()["error"]
        seen.error = SeenError("status", error["message"], answer.status_code, error["code"])

    @staticmethod
    def _add(seen: Seen, calls: dict[int, dict[str, str]], chunk: dict[str, Any]) -> None:
        seen.usage = chunk.get("usage") or seen.usage
        seen.without_choices += not chunk["choices"]
        for choice in chunk["choices"]:
            text = choice["delta"].get("content") or ""
            seen.text += text
            seen.pieces += bool(text)
            for call in choice["delta"].get("tool_calls") or ():
                whole = calls.setdefault(call["index"], {"name": "", "arguments": ""})
                whole["name"] += call["function"].get("name") or ""
                whole["arguments"] += call["function"].get("arguments") or ""
                seen.pieces += 1
            seen.finish = choice.get("finish_reason") or seen.finish

    @staticmethod
    def _read(seen: Seen, document: dict[str, Any]) -> None:
        choice = document["choices"][0]
        seen.text = choice["message"].get("content") or ""
        seen.finish = choice["finish_reason"]
        seen.usage = document["usage"]
        seen.tool_calls = [
            {
                "name": call["function"]["name"],
                "arguments": json.loads(call["function"]["arguments"]),
            }
            for call in choice["message"].get("tool_calls") or ()
        ]
