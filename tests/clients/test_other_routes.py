"""What the SDKs offer besides answers: lists of models, counted tokens, a request's own record, a talk of turns."""

from typing import Any

import anthropic
import httpx
import openai
import pytest
from ask import WEATHER_TOOL
from chain import FIRST_ENGINE, SECOND_ENGINE, Chain
from python_openai import API_KEY


def test_openai_lists_and_shows_models(running_chain: Chain) -> None:
    with openai.OpenAI(base_url=running_chain.url, api_key=API_KEY) as client:
        names = {model.id for model in client.models.list()}
        shown = client.models.retrieve("demo")

    assert names == {*FIRST_ENGINE, *SECOND_ENGINE}
    assert shown.id == "demo"
    assert shown.object == "model"


def test_anthropic_counts_tokens(running_chain: Chain) -> None:
    counts = []
    for url in (running_chain.url, running_chain.engine_url):
        base_url = url.removesuffix("/v1")
        with anthropic.Anthropic(base_url=base_url, api_key=API_KEY) as client:
            counted = client.messages.count_tokens(
                model="demo", messages=[{"role": "user", "content": "How many are these?"}]
            )
            counts.append(counted.input_tokens)

    assert counts[0] == counts[1] > 0


def test_a_request_id_of_the_sdk_leads_to_the_usage_record(running_chain: Chain) -> None:
    with openai.OpenAI(base_url=running_chain.url, api_key=API_KEY) as client:
        completion = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "hi"}]
        )
        request_id = completion._request_id

    record = httpx.get(f"{running_chain.url}/usage/{request_id}").raise_for_status().json()
    assert completion.usage is not None
    assert record["id"] == request_id
    assert record["usage"]["completion_tokens"] == completion.usage.completion_tokens
    assert record["usage"]["total_cost"] == completion.usage.to_dict()["total_cost"]


def test_a_request_id_of_anthropic_s_sdk_does_so_too(running_chain: Chain) -> None:
    base_url = running_chain.url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base_url, api_key=API_KEY, max_retries=0) as client:
        message = client.messages.create(
            model="demo", max_tokens=20, messages=[{"role": "user", "content": "hi"}]
        )
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.messages.create(
                model="no-such-model", max_tokens=20, messages=[{"role": "user", "content": "hi"}]
            )

    for request_id, status in ((message._request_id, 200), (caught.value.request_id, 404)):
        record = httpx.get(f"{running_chain.url}/usage/{request_id}").raise_for_status().json()
        assert record["status"] == status


def test_a_route_that_is_not_there_is_not_found(running_chain: Chain) -> None:
    base_url = running_chain.url.removesuffix("/v1")
    with (
        openai.OpenAI(base_url=running_chain.url, api_key=API_KEY, max_retries=0) as client,
        pytest.raises(openai.NotFoundError) as caught,
    ):
        client.moderations.create(input="hi")
    assert caught.value.code == "unknown_url"
    with (
        anthropic.Anthropic(base_url=base_url, api_key=API_KEY, max_retries=0) as other,
        pytest.raises(anthropic.NotFoundError) as found,
    ):
        other.messages.batches.list()
    assert found.value.type == "not_found_error"


def test_what_a_stream_came_to_goes_back_as_history(running_chain: Chain) -> None:
    messages: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    tools: Any = [{"type": "function", "function": dict(WEATHER_TOOL)}]
    with openai.OpenAI(base_url=running_chain.url, api_key=API_KEY, max_retries=0) as client:
        with client.chat.completions.stream(model="demo", messages=messages, tools=tools) as stream:
            said = stream.get_final_completion().choices[0].message
        (call,) = said.tool_calls or ()
        messages += [said, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
        with client.chat.completions.stream(model="demo", messages=messages, tools=tools) as stream:
            answer = stream.get_final_completion().choices[0].message

    assert call.function.name == WEATHER_TOOL["name"]
    assert answer.content
    assert not answer.tool_calls
