"""The scripted back end: a deterministic answer with honest counts, planned in one go.

The same model, prompt, seed and choice give the same text in every process.
"""

import itertools
from collections.abc import Iterator
from typing import Final

import orjson

from filature.demo.options import Script
from filature.demo.pieces import Finish, Kind, Piece, ToolCall
from filature.demo.question import Question, Tool
from filature.demo.text import Corpus, example_of, seed_of, tokens_of

_WORDS: Final = ("Lyon", "silk", "Tomioka", "thread", "Como")


class ScriptedBackend:
    """Plans answers; sends nothing."""

    def __init__(self) -> None:
        self._corpus = Corpus()

    def plan(self, question: Question, script: Script) -> list[Piece]:
        """The answer's pieces in the order in which they are sent: choices take turns."""
        choices = len(question.prompts) * question.n
        plans = [self._choice(question, script, index) for index in range(choices)]
        if choices == 1:
            return plans[0]
        turns = itertools.zip_longest(*plans)
        return [piece for turn in turns for piece in turn if piece is not None]

    def _choice(self, question: Question, script: Script, index: int) -> list[Piece]:
        prompt = question.prompts[index // question.n]
        seed = seed_of(prompt, question.seed) + index % question.n
        limit = question.max_tokens
        reasoning = self._corpus.passage(seed + 1, script.reasoning)[:limit]
        pieces = _cut(index, reasoning, Kind.REASONING, question, script)
        left = None if limit is None else limit - len(reasoning)
        tool = _tool_to_call(question)
        finish: Finish = "stop"
        stop: str | None = None
        if tool is not None:
            finish, more = self._call(question, script, index, tool, seed, left)
        else:
            tokens = self._tokens(question, script, seed, left)
            if left is not None and (len(tokens) > left or question.ignore_eos):
                finish, tokens = "length", tokens[:left]
            if question.stop:
                tokens, stop = _until_stop(tokens, question.stop)
                finish = "stop" if stop is not None else finish
            more = _cut(index, tokens, Kind.TEXT, question, script)
            while len(more) > 1 and not more[-1].text:
                more[-2].tokens += more.pop().tokens
        pieces += more
        if pieces and tool is None and not script.finish_apart:
            pieces[-1].finish, pieces[-1].stop = finish, stop
        else:
            pieces.append(Piece(index, finish=finish, stop=stop))
        return pieces

    def _tokens(
        self, question: Question, script: Script, seed: int, limit: int | None
    ) -> list[str]:
        if script.text is not None:
            return tokens_of(script.text)
        if question.schema is not None:
            words = itertools.cycle(_WORDS)
            return tokens_of(orjson.dumps(example_of(question.schema, words)).decode())
        count = script.tokens
        if question.ignore_eos and limit is not None:
            count = limit
        return self._corpus.passage(seed, count)

    def _call(
        self,
        question: Question,
        script: Script,
        index: int,
        tool: Tool,
        seed: int,
        limit: int | None,
    ) -> tuple[Finish, list[Piece]]:
        example = example_of(tool.parameters, _words(seed))
        text = orjson.dumps(example if isinstance(example, dict) else {}).decode()
        opening = len(tokens_of(tool.name))
        tokens = tokens_of(text)
        finish: Finish = "tool_calls"
        if limit is not None and limit < opening + len(tokens):
            finish, tokens = "length", tokens[: max(0, limit - opening)]
            opening = min(opening, limit)
        call = ToolCall(f"chatcmpl-tool-{seed:08x}{index:08x}", tool.name, question.tool_is_named)
        first = Piece(index, "", opening, Kind.TOOL, call)
        return finish, [first, *_cut(index, tokens, Kind.TOOL, question, script)]


def _words(seed: int) -> Iterator[str]:
    start = seed % len(_WORDS)
    return itertools.cycle(_WORDS[start:] + _WORDS[:start])


def _tool_to_call(question: Question) -> Tool | None:
    """The tool that is called: the named one, or the first, unless its result is already there."""
    if not question.tools or question.tool_choice == "none":
        return None
    if question.tool_is_named:
        return next(tool for tool in question.tools if tool.name == question.tool_choice)
    if question.tool_choice != "required" and question.ends_with_tool_result:
        return None
    return question.tools[0]


def _cut(
    index: int, tokens: list[str], kind: Kind, question: Question, script: Script
) -> list[Piece]:
    """The tokens as pieces of so many each; in one, where no stream is asked for."""
    size = script.tokens_per_event
    if not question.stream:
        return [Piece(index, "".join(tokens), len(tokens), kind)] if tokens else []
    if size == 1:
        return [Piece(index, token, 1, kind) for token in tokens]
    return [
        Piece(index, "".join(part), len(part), kind)
        for part in (tokens[at : at + size] for at in range(0, len(tokens), size))
    ]


def _until_stop(tokens: list[str], stops: list[str]) -> tuple[list[str], str | None]:
    """The tokens up to the first stop sequence, and that. Its tokens were generated but are not
    shown: they stay, empty."""
    text = ""
    for number, token in enumerate(tokens):
        text += token
        found = [(at, stop) for stop in stops if (at := text.find(stop)) >= 0]
        if found:
            left, stop = min(found)
            shown: list[str] = []
            for generated in tokens[: number + 1]:
                shown.append(generated[:left])
                left -= len(shown[-1])
            return shown, stop
    return tokens, None
