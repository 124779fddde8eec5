"""The SDKs of Node.js behind the same interface: one driver process, one request at a time."""

import json
import queue
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ask import Ask, Seen, SeenError, Traits

NODE_FOLDER = Path(__file__).parent / "node"
NODE = Path(sys.prefix) / "bin" / "node"
ANSWER_TIMEOUT_S = 40.0
"""Above the SDKs' own time-outs: reached only when the driver hangs."""


class NodeDriver:
    """``node driver.mjs`` for as long as the tests run."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [NODE, "driver.mjs"],
            cwd=NODE_FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def run(self, sdk: str, base_url: str, ask: Ask) -> Seen:
        assert self._process.stdin is not None
        request = {"sdk": sdk, "base_url": base_url, "ask": asdict(ask)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._lines.get(timeout=ANSWER_TIMEOUT_S))
        assert "crash" not in answer, answer["crash"]
        seen = Seen(**answer["seen"])
        if seen.error is not None:
            seen.error = SeenError(**answer["seen"]["error"])
        return seen

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._reader.join(timeout=10)
        self._process.stdout.close()


class NodeSdk:
    """One exported function of one module in ``node/sdks``."""

    def __init__(self, driver: NodeDriver, entry_point: str, traits: Traits) -> None:
        self._driver = driver
        self._entry_point = entry_point
        self.traits = traits

    def ask(self, base_url: str, ask: Ask) -> Seen:
        return self._driver.run(self._entry_point, base_url, ask)


def _node(name: str, package: str, dialect: str, **more: Any) -> Traits:
    return Traits(name, "Node", package, dialect, **more)


ENTRY_POINTS: dict[str, Traits] = {
    "openai.chat": _node("openai chat", "openai", "chat"),
    "openai.completions": _node("openai completions", "openai", "completions", tools=False),
    "openai.responses": _node("openai responses", "openai", "responses"),
    "openai.embeddings": _node(
        "openai embeddings", "openai", "embeddings", streams=False, tools=False
    ),
    "anthropic.messages": _node("@anthropic-ai/sdk", "@anthropic-ai/sdk", "messages"),
    # This provider's schemas for chat and completions drop what they do not know.
    "ai.chat": _node(
        "ai, @ai-sdk/openai chat",
        "@ai-sdk/openai",
        "chat",
        shows_cost=(),
        asks_for_usage=True,
    ),
    "ai.completions": _node(
        "ai, @ai-sdk/openai completions",
        "@ai-sdk/openai",
        "completions",
        tools=False,
        shows_cost=(),
        asks_for_usage=True,
    ),
    "ai.responses": _node("ai, @ai-sdk/openai responses", "@ai-sdk/openai", "responses"),
    "ai.compatible": _node("ai, @ai-sdk/openai-compatible", "@ai-sdk/openai-compatible", "chat"),
    # Clamps the temperature itself.
    "ai.messages": _node("ai, @ai-sdk/anthropic", "@ai-sdk/anthropic", "messages", refuses=False),
    "ai.embeddings": _node(
        "ai, @ai-sdk/openai-compatible embeddings",
        "@ai-sdk/openai-compatible",
        "embeddings",
        streams=False,
        tools=False,
        shows_cost=(),
        refuses=False,
    ),
    "eventsource.chat": _node(
        "eventsource-parser", "eventsource-parser", "chat", raises=False, retries=False
    ),
}
"""What ``driver.mjs`` can run: module and function, and what the entry point can do."""
