"""Commands and a running proxy: which of the two has the ledger, and what is said when neither can."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from tests.unit.cli.calling import Caller
from tests.unit.cli.serving import serving

from filature.cli.connect import AdminApi, Target, connected
from filature.cli.in_process import InProcess
from filature.errors import NotFound
from filature.store.data_dir import RunningProxy, write_note
from filature.wire.envelope import error_body


def test_commands_ask_the_proxy_that_runs(cli: Caller) -> None:
    """End to end: every part of the API over a real socket, while the proxy has the store."""
    with serving(cli.folder) as running:
        cli.said("account", "create", "alice")
        cli.said("account", "top-up", "alice", "10", "--id", "first")
        state = running.store.ledger.state
        assert [each for each in state.accounts if each.startswith("client")] == ["client:alice"]
        made = cli.answer("key", "create", "alice")
        found = running.store.keys.find(made["secret"].encode())
        assert found is not None
        cli.said("key", "revoke", made["id"])
        assert found.revoked_ms is not None  # at once, in the process that serves
        cli.said("price", "set", "org/model", "--in", "1", "--out", "2")
        assert running.store.prices.in_force.get("org/model") is not None
        cli.said("price", "alias", "m", "org/model")
        assert cli.said("usage", "list") == "There are no such requests.\n"
        assert cli.said("ledger", "check").startswith("Sound: 4 accounts, 1 transfers")
        assert json.loads(cli.said("ledger", "export"))["id"] == "first"
        assert "There is no account 'bob'" in cli.failed("account", "show", "bob")
    assert cli.answer("account", "show", "alice")["balance"] == "10"  # and now without it


def test_an_admin_url_needs_its_token(cli: Caller, tmp_path: Path) -> None:
    with serving(cli.folder) as running:
        stranger = Caller(tmp_path / "elsewhere")
        url = ("--admin-url", running.url)
        assert "--admin-token" in stranger.failed("account", "list", *url, status=2)
        wrong = stranger.failed("account", "list", *url, "--admin-token", "wrong")
        assert "does not know this token" in wrong
        failed = stranger.failed("ledger", "export", *url, "--admin-token", "wrong")
        assert "does not know this token" in failed
        stranger.env["FILATURE_ADMIN_TOKEN"] = running.token
        stranger.said("account", "create", "zoe", *url)
        stranger.env["FILATURE_ADMIN_URL"] = running.url
        assert stranger.answer("account", "show", "zoe")["name"] == "zoe"
        assert not (tmp_path / "elsewhere").exists()
    for wrong in ("host", "ftp://host", "http://host:port"):
        said = cli.failed("account", "list", "--admin-url", wrong, "--admin-token", "x", status=2)
        assert "--admin-url" in said


def test_another_database_is_another_ledger(cli: Caller) -> None:
    with serving(cli.folder) as running:
        other = f"sqlite:///{cli.folder}/other.db"
        cli.said("account", "create", "eve", "--database", other)
        assert "client:eve" not in running.store.ledger.state.accounts
        cli.said("account", "create", "dan", "--database", running.database)
        assert "client:dan" in running.store.ledger.state.accounts
    assert "no database's URL" in cli.failed("account", "list", "--database", "nonsense")


@pytest.mark.parametrize(
    "words",
    [
        ("account", "list"),
        ("account", "top-up", "alice", "1"),
        ("key", "list"),
        ("ledger", "check"),
        ("ledger", "export"),
        ("payout", "list"),
        ("price", "show"),
        ("price", "withdraw", "m"),
        ("usage", "list"),
        ("usage", "sum"),
        ("worker", "list"),
        ("worker-token", "list"),
        ("db", "backup", "file"),
    ],
)
def test_where_no_ledger_is_none_is_made(cli: Caller, words: tuple[str, ...]) -> None:
    said = cli.failed(*words)
    assert f"There is no ledger at {cli.folder}/filature.db" in said
    assert not cli.folder.exists()


def test_what_to_do_where_no_ledger_is(cli: Caller) -> None:
    said = cli.failed("account", "list")
    assert "--data-dir (FILATURE_DATA_DIR)" in said
    assert "filature account create" in said
    too_long = f"sqlite:////{'x' * 300}/a.db"
    assert "File name too long" in cli.failed("account", "list", "--database", too_long)


@pytest.mark.parametrize(
    "words",
    [
        ("account", "create", "alice"),
        ("price", "set", "m", "--in", "1", "--out", "1"),
        ("price", "alias", "n", "m"),
        ("price", "coefficient", "http://h:1", "1.5"),
        ("worker-token", "create", "gpu"),
    ],
)
def test_the_first_command_may_begin_a_ledger(cli: Caller, words: tuple[str, ...]) -> None:
    assert cli.run(*words).exit_code == 0
    assert (cli.folder / "filature.db").is_file()


def test_a_store_in_use_says_by_whom(cli: Caller) -> None:
    with serving(cli.folder) as running:
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            port = deaf.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        write_note(cli.folder, RunningProxy(os.getpid(), url, running.store.database.name))
        said = cli.failed("account", "list")
        assert f"is in use by process {os.getpid()}" in said
        assert f"A proxy runs there as process {os.getpid()}" in said
        assert url in said
        (cli.folder / "proxy.json").unlink()
        said = cli.failed("account", "list")
        assert f"is in use by process {os.getpid()}" in said


def test_a_note_of_a_proxy_that_died_is_passed_over(cli: Caller) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_note(cli.folder, RunningProxy(dead.pid, "http://127.0.0.1:9", "x"))
    cli.said("account", "create", "alice")


def test_whether_a_lost_top_up_was_done_can_be_found_out(
    cli: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.said("account", "create", "alice")
    handle = InProcess.handle_async_request

    async def lost(self: InProcess, request: httpx.Request) -> httpx.Response:
        response = await handle(self, request)
        await response.aread()
        raise httpx.ReadError("cut")

    monkeypatch.setattr(InProcess, "handle_async_request", lost)
    said = cli.failed("account", "top-up", "alice", "1")
    assert "It is not known whether it was done" in said
    assert "It is not known" not in cli.failed("account", "show", "alice")
    id_ = said.partition("--id ")[2].partition(",")[0]
    monkeypatch.undo()
    assert "Done before" in cli.said("account", "top-up", "alice", "1", "--id", id_)
    assert cli.answer("account", "show", "alice")["balance"] == "1"


def test_a_defect_is_told_as_one(
    cli: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cli.begin()
    monkeypatch.setattr("filature.store.keys.KeyRing.list", None)
    assert "internal error" in cli.failed("key", "list")
    assert "the admin application failed" in caplog.text


def test_what_answers_and_is_no_admin_api(cli: Caller) -> None:
    with serving(cli.folder) as running:
        url = ("--admin-url", f"{running.url}/metrics?", "--admin-token", "x")
        assert "is not that of an admin API" in cli.failed("account", "list", *url)
    url = ("--admin-url", running.url, "--admin-token", "x")
    assert "did not answer" in cli.failed("account", "list", *url)
    assert "did not answer" in cli.failed("ledger", "export", *url)


def test_the_port_of_clients_is_told_from_the_admin_port(cli: Caller) -> None:
    body = error_body(NotFound("Unknown path", code="unknown_url"))

    class Clients(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Clients) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = ("--admin-url", f"http://127.0.0.1:{server.server_port}", "--admin-token", "x")
        said = cli.failed("account", "list", *url, status=2)
        thread.join()
    assert "no admin API" in said


def test_a_body_comes_piece_by_piece(cli: Caller) -> None:
    """Of an answer larger than what may wait, nothing is made before somebody takes it."""
    made: list[int] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            made.append(number)
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
        await send({"type": "http.response.body"})

    async def ask() -> bytes:
        async with (
            httpx.AsyncClient(transport=InProcess(app), base_url="http://a") as client,
            client.stream("GET", "/") as answer,
        ):
            assert len(made) < 10
            return b"".join([piece async for piece in answer.aiter_bytes()])

    assert asyncio.run(ask()) == b"".join(b"%d\n" % number for number in range(100))


def test_an_answer_that_breaks_off_is_an_error() -> None:
    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        if scope["path"] == "/never":
            raise RuntimeError("at once")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("in the middle")

    async def ask(path: str) -> None:
        async with httpx.AsyncClient(transport=InProcess(app), base_url="http://a") as client:
            with pytest.raises(httpx.ReadError):
                await client.get(path)

    asyncio.run(ask("/never"))
    asyncio.run(ask("/"))


def test_the_connection_is_closed_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):  # the second finds the lock free
        with connected(Target(data_dir=tmp_path), begins=True) as api:
            assert isinstance(api, AdminApi)
            assert api.get("/keys")["data"] == []
