"""What a worker gains by its reports, by other prices and by other models' names: nothing. Beside ``test_lies.py``.

The worker is played, so that it can say what none would. Its earnings are those of the ledger.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.accounts import store_of
from tests.integration.messages import completion, cost, json_answer, post
from tests.integration.network import Fake, Network, network

from filature.ledger.accounts import worker_account
from filature.wire import control
from filature.wire.ticket import TICKET_HEADER

PROMPT, COMPLETED = 9, 7
ASKED: dict[str, Any] = {
    "model": "m",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello"}],
}
HONEST = json_answer(completion("seven words are all I say", PROMPT, COMPLETED))
WORTH = cost(PROMPT, COMPLETED)

Reports = list[dict[str, Any]]


class Recorder(Fake):
    """Answers honestly, and keeps the id and the ticket of each request."""

    tickets: dict[str, str]

    async def _tunnel(self) -> None:
        self.tickets = {}
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.upgrade())
        await reader.readuntil(b"\r\n\r\n")
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(
                    line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
                )
                await reader.readexactly(int(fields[b"content-length"]))
                self.tickets[fields[b"x-request-id"].decode()] = fields[TICKET_HEADER].decode()
                self.requests += 1
                writer.write(self.said)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def report(self, request_id: str, ticket: str | None = None, **more: Any) -> dict[str, Any]:
        """An honest one of a request, but for ``more``."""
        return {
            "id": request_id,
            "ticket": self.tickets[request_id] if ticket is None else ticket,
            "outcome": "completed",
            "prompt": PROMPT,
            "cached": 0,
            "completion": COMPLETED,
            "reasoning": 0,
            **more,
        }

    async def deliver(self, net: Network, reports: Reports) -> dict[str, str]:
        auth = f"Authorization: Bearer {self.token}\r\n"
        answer = await net.chain.ask(post({"reports": reports}, control.REPORTS_PATH, headers=auth))
        assert answer.status == 200, answer.body
        verdicts: dict[str, str] = answer.json["verdicts"]
        return verdicts


def earned(net: Network, worker: str = "liar") -> int:
    account = store_of(net.chain).ledger.state.accounts.get(worker_account(worker))
    return 0 if account is None else account.balance


def told(name: str, ratio: float) -> None:
    print(f"{name}: earnings / honest {ratio:.2f}")  # noqa: T201 - what is to be shown


def tenfold(fake: Recorder, ids: list[str]) -> Reports:
    return [fake.report(each, completion=COMPLETED * 10) for each in ids]


def replayed(fake: Recorder, ids: list[str]) -> Reports:
    return [fake.report(ids[0]) for _ in range(40)]


def never_sent(fake: Recorder, ids: list[str]) -> Reports:
    return [fake.report(ids[0]) | {"id": f"req_{number:032x}"} for number in range(20)]


def forged(fake: Recorder, ids: list[str]) -> Reports:
    """Tickets of its own making, for requests that nobody made: each with one character changed."""
    ticket = fake.tickets[ids[0]]
    return [
        fake.report(ids[0], ticket[:at] + ("A" if ticket[at] != "A" else "B") + ticket[at + 1 :])
        | {"id": "req_of_nobody"}
        for at in range(0, len(ticket), 9)
    ]


def in_another_s_name(fake: Recorder, ids: list[str]) -> Reports:
    """A ticket that is good, for a request that it is not of."""
    return [fake.report(ids[0], fake.tickets[ids[1]]) | {"id": "req_of_another"}]


@pytest.mark.parametrize("lie", [tenfold, replayed, never_sent, forged, in_another_s_name])
async def test_a_report_of_what_a_living_proxy_metered_earns_nothing(
    lie: Callable[[Recorder, list[str]], Reports],
) -> None:
    async with network() as net:
        fake = await Recorder.join(net, "liar", coefficient=1000, says=HONEST)
        for _ in range(6):
            assert (await net.chain.ask(post(ASKED))).status == 200
        ids = list(fake.tickets)
        verdicts = await fake.deliver(net, lie(fake, ids))
        assert set(verdicts.values()) <= {"known", "forged"}
        ratio = earned(net) / (6 * WORTH)
        told(f"{lie.__name__.replace('_', ' ')} reports", ratio)
        assert ratio == 1.0
        is_marked = net.chain.proxy.auditor.watch("liar").is_marked
        assert is_marked is (lie is tenfold)  # it said otherwise in the answers themselves
        await fake.close()


async def test_a_price_that_is_raised_after_the_ticket_is_for_later_requests() -> None:
    async with network() as net:
        fake = await Recorder.join(net, "liar", coefficient=1000, says=HONEST)
        for number in range(6):
            asking = asyncio.create_task(net.chain.ask(post(ASKED | {"max_coefficient": 1000})))
            if number == 3:
                await asyncio.sleep(0)
                standing = {
                    "instance": fake.instance,
                    "models": [{"id": "m", "coefficient": 100_000}],
                    "capacity": 8,
                }
                auth = f"Authorization: Bearer {fake.token}\r\n"
                raised = await net.chain.ask(post(standing, control.HEARTBEAT_PATH, headers=auth))
                assert raised.status == 200
            answer = await asking
            if answer.status == 200:
                assert answer.json["usage"]["total_cost"] == WORTH
            else:  # who names a highest coefficient is told, and not charged
                assert number >= 3
        told("another coefficient", earned(net) / (WORTH * fake.requests))
        assert earned(net) == WORTH * fake.requests
        await fake.close()


async def test_a_model_s_name_earns_its_own_tokens_at_its_own_price() -> None:
    """Who sells a small model under a large one's name is paid for its own answers' tokens: what it gains is what it
    saves, which no count of tokens shows. A token that names models keeps it from those it is not trusted with."""
    async with network() as net:
        store = store_of(net.chain)
        await store.prices.set("large", prompt=2 * 10**9, cached=10**9, completion=8 * 10**9)
        await net.token("liar", frozenset({"m"}))
        fake = await Recorder.join(net, "liar", coefficient=1000, says=HONEST)
        standing = {
            "instance": fake.instance,
            "models": [{"id": "m"}, {"id": "large"}],
            "capacity": 8,
        }
        auth = f"Authorization: Bearer {fake.token}\r\n"
        said = await net.chain.ask(post(standing, control.HEARTBEAT_PATH, headers=auth))
        assert said.json["refused_models"] == ["large"]
        refused = await net.chain.ask(post(ASKED | {"model": "large"}))
        assert refused.status == 503, refused.body
        assert (await net.chain.ask(post(ASKED))).status == 200
        told("a model that its token does not name", earned(net) / WORTH)
        assert earned(net) == WORTH
        await fake.close()
