"""The model back end around a stand-in for the library: counts, cancelling, bounds, failures."""

import asyncio
import threading
from typing import Any

import pytest
from tests.unit.demo.runner import Runner, chunk, loaded

from filature.demo import model as model_module
from filature.demo.model import ModelBackend, prompt_of
from filature.demo.pieces import Piece
from filature.demo.question import Message, Question, RefusedError, read_question
from filature.wire.dialect import Dialect


def asked(**body: Any) -> Question:
    body = {"messages": [{"role": "user", "content": "Hi"}]} | body
    return read_question(Dialect.CHAT, body, 2048)


async def collect(backend: ModelBackend, question: Question, limit: int = 9) -> list[Piece]:
    return [piece async for piece in backend.generate(question, limit)]


async def test_the_counts_are_the_librarys() -> None:
    chunks = [chunk("One"), chunk(None), chunk(""), chunk(" two"), chunk("!", "stop", 7)]
    async with loaded(Runner(chunks)) as backend:
        pieces = await collect(backend, asked())
    assert [(piece.text, piece.tokens) for piece in pieces] == [("One", 1), (" two", 3), ("!", 3)]
    assert pieces[-1].finish == "stop"


async def test_the_request_is_passed_on() -> None:
    runner = Runner([chunk("x", "length", 1)])
    schema = {"type": "object"}
    question = asked(
        temperature=0.5,
        top_p=0.9,
        stop="END",
        response_format={"type": "json_schema", "json_schema": {"schema": schema}},
    )
    async with loaded(runner) as backend:
        (piece,) = await collect(backend, question, limit=3)
    assert piece.finish == "length"
    (request,) = runner.requests
    assert (request.temperature, request.top_p, request.max_tokens) == (0.5, 0.9, 3)
    assert request.stop_seqs == ["END"]
    assert (request.grammar, request.grammar_type) == ('{"type":"object"}', "json_schema")
    assert request.messages == [{"role": "user", "content": prompt_of(question.messages)}]


async def test_several_choices_and_prompts() -> None:
    runner = Runner([chunk("x", "stop", 1)])
    body = {"prompt": ["a", "b"], "n": 2}
    async with loaded(runner) as backend:
        pieces = await collect(backend, read_question(Dialect.COMPLETIONS, body, 2048))
    assert [piece.choice for piece in pieces] == [0, 1, 2, 3]
    assert [request.messages[0]["content"] for request in runner.requests] == ["a", "a", "b", "b"]


async def test_leaving_ends_the_generation() -> None:
    runner = Runner([chunk("x")] * 1000, gate=threading.Semaphore(3))
    async with loaded(runner) as backend:
        pieces = backend.generate(asked(), 1000)
        assert (await anext(pieces)).text == "x"
        await pieces.aclose()
        runner.gate.release(3)  # for the tokens that were under way
        assert await asyncio.to_thread(runner.dropped.wait, 5)


async def test_prompts_are_read_one_at_a_time() -> None:
    runner = Runner([chunk("x"), chunk("y", "stop", 2)])
    async with loaded(runner) as backend:
        answers = await asyncio.gather(*(collect(backend, asked()) for _ in range(12)))
    assert all(len(answer) == 2 for answer in answers)
    assert runner.overlapping_prefills == 0


async def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "WAITING_MAX", 1)
    runner = Runner([chunk("x", "stop", 1)], gate=threading.Semaphore(0))
    places = model_module.RUNNING_MAX + 1
    async with loaded(runner) as backend:
        running = [asyncio.create_task(collect(backend, asked())) for _ in range(places)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as refused:
            await collect(backend, asked())
        assert refused.value.status == 503
        runner.gate.release(places)
        assert [len(pieces) for pieces in await asyncio.gather(*running)] == [1] * places
        runner.gate.release(1)
        assert len(await collect(backend, asked())) == 1


async def test_the_librarys_failure_is_told() -> None:
    runner = Runner([chunk("x")], error=ValueError("broken"))
    async with loaded(runner) as backend:
        with pytest.raises(RuntimeError, match="broken"):
            await collect(backend, asked())
        runner.error = None
        runner.chunks = [chunk("y", "stop", 1)]
        assert len(await collect(backend, asked())) == 1


async def test_tokens_are_counted_by_the_library() -> None:
    async with loaded(Runner([])) as backend:
        assert await backend.count(["a b c", "d"]) == [3, 1]


def test_the_prompt_is_in_the_models_form() -> None:
    turns = [Message("user", "Hi"), Message("assistant", "Hello."), Message("tool", "21")]
    prompt = prompt_of(turns)
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.endswith(
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\n21<|im_end|>\n<|im_start|>assistant\n"
    )
    own = prompt_of([Message("developer", "Be brief."), Message("user", "Hi")])
    assert own.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
