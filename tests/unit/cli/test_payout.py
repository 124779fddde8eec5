"""``filature payout``: what operators pay, and what owners of GPUs ask for."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from tests.unit.cli.calling import Caller, rows
from tests.unit.cli.serving import Running, serving
from tests.unit.store.working import rich, serve

from filature.units import Nano


@pytest.fixture
def running(cli: Caller) -> Iterator[Running]:
    """A proxy at which the worker ``gpu`` has earned a credit, and asked for 0.4 of it."""
    with serving(cli.folder) as running:

        async def work() -> None:
            await rich(running.store)
            serve(running.store, "r1", "gpu", 10**9)
            await running.store.ledger.flush()
            await running.store.payout_requests.add("a", "gpu", Nano(4 * 10**8), Nano(10**9))

        asyncio.run_coroutine_threadsafe(work(), running.loop).result(20)
        yield running


def test_an_amount_is_paid_once(cli: Caller, running: Running) -> None:
    pay = ("payout", "create", "gpu", "0.25", "--id", "june", "--note", "by bank")
    assert cli.said(*pay) == "Paid gpu 0.25 credits (id june).\n"
    assert cli.said(*pay).startswith("Done before")
    assert cli.answer("payout", "create", "gpu", "0.05")["id"].startswith("payout-")
    assert "has only " in cli.failed("payout", "create", "gpu", "0.71")
    assert cli.answer("account", "show", "worker:gpu")["balance"] == "0.7"


def test_a_request_is_paid_once(cli: Caller, running: Running) -> None:
    paid = cli.answer("payout", "create", "--request", "a", "--note", "by bank")
    assert (paid["amount"], paid["note"], paid["result"]) == ("0.4", "by bank", "done")
    assert cli.said("payout", "create", "--request", "a").startswith("Done before")
    assert cli.answer("account", "show", "worker:gpu")["balance"] == "0.6"
    assert "was paid" in cli.failed("payout", "refuse", "a")


def test_listed(cli: Caller, running: Running) -> None:
    cli.said("payout", "create", "gpu", "0.25", "--id", "june", "--note", "by bank")
    cli.said("ledger", "correct", "june", "0.05")
    paid, opened = sorted(rows(cli.said("payout", "list")), key=lambda row: row[3], reverse=True)
    assert paid[2:] == ["gpu", "paid", "0.25", "0.05", "-", "june", "by", "bank"]
    assert opened[2:] == ["gpu", "open", "0.40", "-", "a", "-", "-"]
    assert cli.said("payout", "refuse", "a") == "Refused a of gpu.\n"
    assert {each["state"] for each in cli.answer("payout", "list")["data"]} == {"paid", "refused"}
    written = cli.said("payout", "list", "--worker", "gpu", "--csv").splitlines()
    assert written[0].startswith("at,at_ms,id,request,worker,state,amount,")
    assert len(written) == 3
    assert "--csv" in cli.failed("payout", "list", "--csv", "--json", status=2)


def test_without_any(cli: Caller) -> None:
    cli.begin()
    assert cli.said("payout", "list").startswith("There are no payouts yet")


@pytest.mark.parametrize(
    "words", [(), ("gpu",), ("gpu", "1", "--request", "a"), ("--request", "a", "--id", "b")]
)
def test_what_is_missing_or_too_much_is_said(cli: Caller, words: tuple[str, ...]) -> None:
    assert "--request" in cli.failed("payout", "create", *words, status=2)


class Desk:
    """A proxy's route for requests: answers as it is told, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, Any]] = []
        self.status = 200
        self.answer: Any = {
            "object": "payout_request",
            "id": "x",
            "worker": "gpu",
            "amount_nano": 125 * 10**7,
            "state": "open",
            "at_ms": 5,
            "balance_nano": 2 * 10**9,
        }
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                desk.asked.append((self.path, self.headers["authorization"], json.loads(body)))
                answer = json.dumps(desk.answer).encode()
                self.send_response(desk.status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_request(self, code: object = "-", size: object = "-") -> None:
                """Nothing is logged."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    thread = threading.Thread(target=desk.server.serve_forever)
    thread.start()
    yield desk
    desk.server.shutdown()
    thread.join()
    desk.server.server_close()


def test_what_the_owner_asks_for(cli: Caller, desk: Desk) -> None:
    ask = ("payout", "request", "1.25", "--proxy", f"{desk.url}/", "--token", "secret")
    said = cli.said(*ask, "--id", "x")
    assert "1.25 credits for gpu (id x, open); its balance there: 2.00" in said
    assert cli.answer(*ask) == desk.answer
    cli.env["FILATURE_WORKER_TOKEN"] = "other"
    cli.said(*ask[:-2])
    (path, token, body), (_, _, made), (_, of_environment, again) = desk.asked
    assert (path, token) == ("/filature/v1/payout-requests", "Bearer secret")
    assert body == {"id": "x", "amount_nano": 125 * 10**7}
    assert made["id"].startswith("pr-")
    assert again["id"] != made["id"]
    assert of_environment == "Bearer other"


def test_what_the_proxy_says_is_passed_on(cli: Caller, desk: Desk) -> None:
    ask = ("payout", "request", "1", "--proxy", desk.url, "--token", "t", "--id", "x")
    desk.answer = {"error": {"message": "That is more than was earned."}}
    for status, ends, unknown in ((409, 1, False), (400, 2, False), (503, 1, True)):
        desk.status = status
        said = cli.failed(*ask, status=ends)
        assert "That is more than was earned." in said
        assert ("again with --id x" in said) is unknown
    desk.status, desk.answer = 200, {"status": "ok"}
    assert "no proxy's answer" in cli.failed(*ask)
    desk.answer = []
    assert "no proxy's answer" in cli.failed(*ask)


@pytest.mark.parametrize(
    ("amount", "proxy", "status", "said"),
    [
        ("-1", "http://127.0.0.1:1", 2, "No such option"),
        ("1.0000000001", "http://127.0.0.1:1", 2, "AMOUNT must be"),
        ("1", "127.0.0.1:1", 2, "--proxy"),
        ("1", "http://127.0.0.1:1", 1, "did not answer"),
    ],
)
def test_what_cannot_be_asked(cli: Caller, amount: str, proxy: str, status: int, said: str) -> None:
    words = ("payout", "request", amount, "--proxy", proxy, "--token", "t")
    result = cli.run(*words)
    assert result.exit_code == status
    assert said in result.stderr
