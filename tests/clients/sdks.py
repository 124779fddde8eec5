"""Every entry point that is tested, in the order of the table, and the versions that are installed."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from ask import Sdk, Traits
from node_sdks import ENTRY_POINTS, NODE_FOLDER, NodeDriver, NodeSdk
from python_anthropic import AnthropicMessages, AnthropicMessagesAsync
from python_langchain import LangChainChat, LangChainEmbeddings
from python_openai import (
    OpenAIChat,
    OpenAIChatAsync,
    OpenAICompletions,
    OpenAIEmbeddingsClient,
    OpenAIResponses,
    OpenAIResponsesAsync,
)
from python_sse import HttpxSse


def python_sdks() -> Sequence[Sdk]:
    return (
        OpenAIChat(),
        OpenAIChatAsync(),
        OpenAICompletions(),
        OpenAIResponses(),
        OpenAIResponsesAsync(),
        OpenAIEmbeddingsClient(),
        LangChainChat(responses=False),
        LangChainChat(responses=True),
        LangChainEmbeddings(),
        AnthropicMessages(),
        AnthropicMessagesAsync(),
        HttpxSse(),
    )


def node_sdks(driver: NodeDriver) -> Sequence[Sdk]:
    return [NodeSdk(driver, name, traits) for name, traits in ENTRY_POINTS.items()]


def all_traits() -> Sequence[Traits]:
    """Of every entry point, without starting anything."""
    return [*(sdk.traits for sdk in python_sdks()), *ENTRY_POINTS.values()]


def versions(rows: Sequence[Traits]) -> Mapping[str, str]:
    """``{"Python openai": "…"}``: of each row's package, as installed."""
    found = {}
    for row in rows:
        if row.language == "Python":
            number = version(row.package)
        else:
            manifest = NODE_FOLDER / "node_modules" / row.package / "package.json"
            number = json.loads(manifest.read_text())["version"]
        found[f"{row.language} {row.package}"] = number
    return found
