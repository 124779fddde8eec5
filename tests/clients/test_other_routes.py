"""What the SDKs offer besides answers: lists of models, counted tokens, a request's own record."""

import anthropic
import httpx
import openai
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
