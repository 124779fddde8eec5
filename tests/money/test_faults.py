"""What the world does to a ledger: clocks jump, disks fill up, files and servers cannot be written to.

Whatever happens: refusals that say what is wrong, nothing corrupt, and each client pays for the answers
that it had whole, and for no others.
"""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from sqlalchemy import event
from tests.databases import PostgresServer, sqlite_url
from tests.integration.accounts import (
    CREDIT,
    Customer,
    balance,
    charges,
    customer,
    money,
    records,
    sound,
    store_of,
)
from tests.integration.harness import Answer, Chain, EngineRequest, Puppet
from tests.integration.messages import (
    CHAT,
    DONE,
    LAST_CHUNK,
    SHORT_STREAM,
    STREAM,
    STREAM_HEAD,
    chunked,
    completion,
    cost,
    delta,
    json_answer,
    stream_answer,
    usage_event,
)
from tests.money.process import Installation, heed_permissions, running_engine

from filature.store.store import Store

HOUR_S: Final = 3600.0
ASKED: Final = 10
PRICE: Final = cost(10, 2)
"""Of each answer here."""
FILLER: Final = "filler"
COMMIT_WAIT_S: Final = 0.3
REFUSAL_LINES_MAX: Final = 3
ASKS_MAX: Final = 5000
"""Until a disk is full."""


class Wall:
    """The time that the clock on the wall shows: the real one, and what it jumped by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shift_s = 0.0
        real, real_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real() + self.shift_s)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(self.shift_s * 1e9))


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
async def test_a_clock_that_jumps(database_url: str, wall: Wall, jump_s: float) -> None:
    """While a request runs, between requests, and between two lives of the proxy."""
    puppet = Puppet()
    async with money(puppet, database=database_url) as c:
        who = await customer(c, CREDIT, requests_per_minute=2, budget=CREDIT, budget_period="total")
        client = await c.connect()
        client.send(who.asks(STREAM, idempotency_key="k"))
        call = await puppet.call()
        call.send(STREAM_HEAD, chunked(delta("a")))
        await client.head()
        wall.shift_s = jump_s
        assert c.proxy._admission.expire() == 0, "what runs is still held for"
        last = [delta("b", finish="stop"), usage_event(10, 2), DONE]
        call.end(*map(chunked, last), LAST_CHUNK)
        async with asyncio.timeout(10):
            while await client.chunk():
                pass
        assert balance(c, who.account) == CREDIT - PRICE
        again = await c.ask(who.asks(STREAM, idempotency_key="k"))
        assert again.json["error"]["code"] == "already_settled"
        client.send(who.asks(CHAT))
        call = await puppet.call()
        call.end(json_answer(completion("hi", 10, 2)))
        assert (await client.answer()).status == 200
        refused = await c.ask(who.asks(CHAT))
        assert refused.status == 429, "a minute is a minute, whatever the wall shows"
        stored = await records(c)
    wall.shift_s = -jump_s
    async with money(quick, database=database_url) as c:
        assert balance(c, who.account) == CREDIT - 2 * PRICE
        assert (await c.ask(who.asks(CHAT))).status == 200
        assert balance(c, who.account) == CREDIT - 3 * PRICE
        assert len(await records(c)) == len(stored) + 1
        assert len(await charges(c)) == 3


# What cannot be written to


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for three mebibytes."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> None:
    """A file takes all the room that is left."""
    with (place / FILLER).open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def impatient(c: Chain) -> None:
    """Let a charge that cannot be stored fail its answer soon."""
    object.__setattr__(c.proxy._plane.limits, "commit_wait_s", COMMIT_WAIT_S)


def is_refused(answer: Answer) -> bool:
    """Told that the ledger cannot be written to. Anything else but an answer is wrong."""
    if answer.status == 200 and answer.complete and b'"error"' not in answer.body:
        return False
    assert b'"ledger_unavailable"' in answer.body, answer
    assert b"[DONE]" not in answer.body
    assert answer.status == 503
    assert answer.headers["retry-after"]
    return True


async def ask(c: Chain, who: Customer, number: int) -> Answer:
    return await c.ask(who.asks(STREAM if number % 2 else CHAT))


async def quick(request: EngineRequest, writer: asyncio.StreamWriter) -> None:
    if request.json.get("stream"):
        writer.write(stream_answer(SHORT_STREAM))
    else:
        writer.write(json_answer(completion("hi", 10, 2)))


async def until_refused(c: Chain, who: Customer) -> int:
    """How many were answered before."""
    for number in range(ASKS_MAX):
        if is_refused(await ask(c, who, number)):
            return number
    raise AssertionError("the disk did not fill up")


async def until_served(c: Chain, who: Customer) -> None:
    """That one is answered, too."""
    async with asyncio.timeout(30):
        while is_refused(await ask(c, who, 0)):
            await asyncio.sleep(0.05)


async def judge(c: Chain, who: Customer, answered: int) -> None:
    """Who had an answer whole paid for it; and no other did."""
    await store_of(c).ledger.flush()
    assert balance(c, who.account) == who.credit - answered * PRICE
    stored = await records(c)
    outcomes = [record.outcome for record in stored]
    assert outcomes.count("completed") == answered
    assert set(outcomes) <= {"completed", "not_settled"}
    assert sum(record.total_cost for record in stored) == answered * PRICE
    await sound(c)


Fault = Callable[[Store, bool], None]
"""Makes a database one that cannot be written to, or lets it be one again."""


def set_pragma(store: Store, pragma: str) -> None:
    """On the connection that writes, by the thread that does, and on those that come after it."""
    database = store.database

    def set_it() -> None:
        if store.writer._hot is not None:
            store.writer._hot.driver_connection.execute(pragma)

    store.writer._jobs.put(set_it)
    for listener in getattr(database, "test_listeners", []):
        event.remove(database.engine, "connect", listener)

    def on_connect(connection: Any, record: object) -> None:
        connection.execute(pragma)

    database.test_listeners = [on_connect]  # type: ignore[attr-defined]
    event.listen(database.engine, "connect", on_connect)


def full(store: Store, on: bool) -> None:
    pages = "1" if on else "1073741823"  # never less than there are
    set_pragma(store, f"PRAGMA max_page_count = {pages}")


def read_only(store: Store, on: bool) -> None:
    set_pragma(store, f"PRAGMA query_only = {'ON' if on else 'OFF'}")


def read_only_server(store: Store, on: bool) -> None:
    """As a standby, or one whose administrator has said so."""
    url = store.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        name = store.database.url.database
        value = "on" if on else "off"
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_read_only = {value}".encode()
        )
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("what", ["disk", "file"])
async def test_a_full_disk(what: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Refused while there is no room, served again when there is, and nothing is lost.

    ``file``: one that SQLite was told not to let grow, for machines that mount no disk for a test.
    """
    place: Path = request.getfixturevalue("small_disk") if what == "disk" else tmp_path
    url = sqlite_url(place / "filature.db")
    async with money(quick, database=url) as c:
        impatient(c)
        who = await customer(c, CREDIT)
        answered = 0
        for _ in range(2):
            for number in range(ASKED):
                assert not is_refused(await ask(c, who, number))
            if what == "disk":
                fill(place)
            else:
                full(store_of(c), True)
            answered += ASKED + await until_refused(c, who)
            begun = time.monotonic()
            assert is_refused(await ask(c, who, 0)), "nothing is admitted that cannot be charged"
            assert time.monotonic() - begun < COMMIT_WAIT_S
            if what == "disk":
                (place / FILLER).unlink()
            else:
                full(store_of(c), False)
            await until_served(c, who)
            answered += 1
        await judge(c, who, answered)
    after = await Store.open(url)
    assert after.ledger.available(who.account) == CREDIT - answered * PRICE
    await after.close()


@pytest.mark.parametrize(
    ("database_url", "fault"),
    [("sqlite", read_only), ("postgresql", read_only_server)],
    indirect=["database_url"],
)
async def test_a_database_that_cannot_be_written_to(database_url: str, fault: Fault) -> None:
    """Told at once where nothing runs yet, in time where something does; then it goes on by itself."""
    puppet = Puppet()
    async with money(puppet, database=database_url) as c:
        impatient(c)
        who = await customer(c, CREDIT)
        running = [await c.connect() for _ in range(3)]
        for client in running:
            client.send(who.asks(CHAT))
        calls = [await puppet.call() for _ in running]
        await asyncio.to_thread(fault, store_of(c), True)
        for call in calls:
            call.end(json_answer(completion("hi", 10, 2)))
        for client in running:
            assert is_refused(await client.answer())
        assert is_refused(await c.ask(who.asks(CHAT)))
        assert puppet.uncalled, "an engine worked for nothing"
        health = store_of(c).ledger.failing
        assert health is not None
        await asyncio.to_thread(fault, store_of(c), False)
        served = asyncio.create_task(until_served(c, who))
        (await puppet.call()).end(json_answer(completion("hi", 10, 2)))
        await served
        await judge(c, who, 1)
        assert sorted(record.outcome for record in await records(c)).count("not_settled") == 3


async def test_connections_to_the_database_that_are_cut(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """In the middle of commits, too: it is not known whether they happened, and nothing happens twice."""
    async with money(quick, database=postgres_url) as c:
        who = await customer(c, CREDIT)
        answered = 0
        cutting = True

        async def client() -> None:
            nonlocal answered
            number = 0
            while cutting:
                number += 1
                answer = await ask(c, who, number)
                answered += not is_refused(answer)

        clients = [asyncio.create_task(client()) for _ in range(16)]
        for _ in range(20):
            before = answered
            await asyncio.to_thread(cut, postgres_url)
            async with asyncio.timeout(30):
                while answered < before + 20:
                    await asyncio.sleep(0.01)
        cutting = False
        await asyncio.gather(*clients)
        await judge(c, who, answered)


def cut(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
            "current_database() AND pid <> pg_backend_pid() AND application_name = 'filature'"
        )


# Processes


async def test_a_database_file_made_read_only(tmp_path: Path) -> None:
    """What has it open goes on or says why not; what starts on it says so in a line; nothing is lost."""
    async with running_engine(tmp_path, "--tokens", "2") as engine:
        place = Installation(tmp_path, engine.url)
        place.prepare = heed_permissions
        secret = await place.customer("1")
        file = place.directory / "data" / "filature.db"
        proxy = await place.up()
        told = await served(proxy.url, secret)
        for each in file.parent.glob("filature.db*"):
            each.chmod(0o400)
        told += await served(proxy.url, secret)
        assert await proxy.stop() == 0
        for each in file.parent.glob("filature.db*"):
            each.chmod(0o400)
        told_why = await refused_start(place)
        assert str(file) in told_why
        assert "read" in told_why.lower()
        for each in file.parent.glob("filature.db*"):
            each.chmod(0o600)
        await place.check()
        shown = await place.ask("account", "show", "alice")
        assert shown["balance_nano"] == CREDIT - told


async def test_a_disk_that_is_full_before_there_is_a_ledger(small_disk: Path) -> None:
    place = Installation(small_disk, "http://127.0.0.1:9")
    fill(small_disk)
    told_why = await refused_start(place)
    status, _, errors = await place.run("account", "create", "alice")
    assert status == 1
    assert len(errors.splitlines()) == 1
    for each in (told_why, errors):
        assert "filature.db" in each
        assert "No space left" in each
    (small_disk / FILLER).unlink()
    await place.customer("1")
    await place.check()


async def refused_start(place: Installation) -> str:
    """What a proxy says when it does not start: a line or two, and no traceback."""
    status, _, errors = await place.run("up", "--engine", place.engine_url, "--port", "0")
    assert status == 1, errors
    lines = [line for line in errors.splitlines() if not line.startswith("{")]
    assert 1 <= len(lines) <= REFUSAL_LINES_MAX, errors
    assert all(line.startswith("filature up: ") for line in lines)
    return "\n".join(lines)


async def test_a_database_server_that_is_not_there(tmp_path: Path) -> None:
    nowhere = f"postgresql://me:secret@/ledger?host={tmp_path}"
    told_why = await refused_start(Installation(tmp_path, "http://127.0.0.1:9", nowhere))
    assert "ledger" in told_why
    assert "secret" not in told_why


@pytest.mark.parametrize("name", ["letter/filature.db", "letter"])
async def test_what_is_no_folder_and_no_database(tmp_path: Path, name: str) -> None:
    (tmp_path / "letter").write_text("a letter, and no folder or database" * 100)
    url = f"sqlite:///{tmp_path / name}"
    told_why = await refused_start(Installation(tmp_path, "http://127.0.0.1:9", url))
    assert str(tmp_path / name) in told_why


async def served(url: str, secret: str) -> int:
    """What an answer cost; 0 where it was refused for the ledger's sake."""
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=30) as client:
        async with asyncio.timeout(30):
            while (await client.get(f"{url}/ready")).status_code != 200:
                await asyncio.sleep(0.01)
        answer = await client.post(f"{url}/v1/chat/completions", json=body)
    if answer.status_code == 200:
        return int(answer.json()["usage"]["total_cost"])
    assert answer.json()["error"]["code"] == "ledger_unavailable"
    return 0


async def test_what_clients_say_does_not_stop_the_ledger(database_url: str) -> None:
    """Texts that a database might not take, wherever a client can put them."""
    async with money(quick, database=database_url) as c:
        who = await customer(c, CREDIT)
        odd = "' \" \\ %s {} \\u0000 ;--"
        ours = odd.replace(" ", "_")
        request = who.asks(CHAT, x_request_id=ours, idempotency_key=f"\x80\xff {odd}")
        assert (await c.ask(request.decode().encode("latin-1"))).status == 200
        for model in ("\0", "m\0", "\ud800", "'; DROP TABLE transfers; --"):
            answer = await c.ask(who.asks(CHAT | {"model": model}))
            assert answer.status in (400, 404)
        assert (
            await c.ask(who.asks(CHAT | {"user": "a\0b", "metadata": {"\0": "\0"}}))
        ).status == 200
        await judge(c, who, 2)
