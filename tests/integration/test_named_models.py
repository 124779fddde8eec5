"""Models that are named by hand: the client's names, the engine's, and what is known of them."""

import asyncio

import pytest
from tests.integration.harness import RawEngine, chain, says
from tests.integration.messages import CHAT, completion, get, json_answer, post

HI = json_answer(completion("hi"))


async def test_models_named_by_hand_where_the_engine_does_not_tell() -> None:
    class Mute(RawEngine):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                try:
                    request = await self._read(reader)
                except (asyncio.IncompleteReadError, ConnectionError):
                    writer.close()
                    return
                if request.path == "/metrics":
                    self.metrics_requests.append(request)
                    writer.write(json_answer({}, "404 No"))
                    continue
                self.requests.append(request)
                models = request.path == "/v1/models"
                writer.write(json_answer({}, "500 No") if models else HI)

    engine = Mute(says(HI), suffix="=one:org/One,two")
    async with chain(engine) as c:
        for name, upstream in (("one", "org/One"), ("two", "two")):
            assert (await c.ask(post(CHAT | {"model": name}))).status == 200
            assert engine.requests[-1].json["model"] == upstream


async def test_a_name_that_the_engine_does_not_list_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As of Ollama's names, which have a colon in them."""
    engine = RawEngine(says(HI), models=("llama3.2:1b",), suffix="=llama3.2:1b,two:llama3.2:1b")
    async with chain(engine):
        pass
    (said,) = [each.getMessage() for each in caplog.records if "does not list" in each.getMessage()]
    assert "llama3.2 is named by hand as '1b'" in said
    assert said.endswith("it lists 'llama3.2:1b'")


@pytest.mark.parametrize("upstream", ["m", "unlisted"])
async def test_what_an_engine_tells_of_a_model_named_by_hand(upstream: str) -> None:
    """Its context bounds what is held and asked for, as it does under the engine's own name."""
    engine = RawEngine(says(HI), models=("m",), suffix=f"=nick:{upstream}")
    engine.context_length = 2048
    async with chain(engine) as c:
        (entry,) = (await c.ask(get("/v1/models"))).json["data"]
        assert (entry["id"], entry["max_model_len"]) == ("nick", 2048)
        assert (await c.ask(post({**CHAT, "model": "nick"}))).status == 200
    sent = engine.requests[0].json
    assert sent["model"] == upstream
    assert "max_tokens" not in sent, "an engine refuses more than its context"


async def test_a_model_named_by_hand_is_offered_once_its_engine_was_looked_at() -> None:
    """Not before its context is known: an engine refuses more tokens than that, though the client named none."""
    may_tell = asyncio.Event()

    class Late(RawEngine):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await may_tell.wait()
            await super()._serve(reader, writer)

    engine = Late(says(HI), suffix="=nick:m")
    engine.context_length = 2048
    asked = post({**CHAT, "model": "nick"})
    async with chain(engine, wait=False) as c:
        early = await c.ask(asked)
        assert (early.status, early.headers["retry-after"]) == (503, "1")
        may_tell.set()
        await c.looked()
        assert (await c.ask(asked)).status == 200
    assert ["max_tokens" in each.json for each in engine.requests] == [False]
