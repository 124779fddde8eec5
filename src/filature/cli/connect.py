"""How a command reaches the admin API: that of a running proxy, or one in this process over a store that it opened.

Either way it is the same API, so a command does not know which it is.
"""

import asyncio
import json
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    import httpx

FAILED: Final = 1
"""Exit status for what went wrong with good arguments."""
CHOICE_WRONG: Final = 2
"""For arguments that cannot be used."""
CONNECT_S: Final = 5.0
ALIVE_S: Final = 3.0
"""For a running proxy's admin port to answer."""
ANSWER_S: Final = 600.0
"""Without a byte of an answer: a check of a large ledger takes its time."""
PREFIX: Final = "/admin/v1"


class CommandFailed(Exception):  # as those of filature.errors
    """A command cannot go on: what a person is told, and the exit status.

    ``unknown``: something was asked for and it is not known whether it was done.
    """

    def __init__(self, message: str, status: int = FAILED, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.unknown = unknown


@dataclass(frozen=True, slots=True)
class Target:
    """What a command was told of where the ledger is; None is for what was not said."""

    data_dir: Path | None = None
    database: str | None = None
    admin_url: str | None = None
    admin_token: str | None = None

    @property
    def folder(self) -> Path:
        """The data directory."""
        from filature.proxy.settings import default_data_dir  # noqa: PLC0415  # --help is quick

        return self.data_dir or default_data_dir()

    @property
    def database_url(self) -> str:
        from filature.proxy.settings import DATABASE_FILE  # noqa: PLC0415  # as above

        return self.database or f"sqlite:///{self.folder / DATABASE_FILE}"


class AdminApi:
    """Asks the admin API. Paths are those below ``/admin/v1``. Raises CommandFailed for every refusal."""

    def __init__(self, runner: asyncio.Runner, client: "httpx.AsyncClient") -> None:
        self._runner = runner
        self._client = client

    def get(self, path: str, **query: object) -> Any:
        return self._runner.run(self._ask("GET", path, query, None))

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._runner.run(self._ask("POST", path, {}, body))

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return self._runner.run(self._ask("PUT", path, {}, body))

    def delete(self, path: str) -> Any:
        return self._runner.run(self._ask("DELETE", path, {}, None))

    def download(self, path: str, sink: BinaryIO, **query: object) -> None:
        """Write an answer's body to ``sink`` as it comes."""
        self._runner.run(self._download(path, sink, query))

    async def _ask(
        self, method: str, path: str, query: dict[str, object], body: dict[str, Any] | None
    ) -> Any:
        import httpx  # noqa: PLC0415  # --help is quick

        try:
            answer = await self._client.request(
                method, PREFIX + path, params=_said(query), json=body
            )
        except httpx.HTTPError as error:
            unknown = method != "GET" and not isinstance(error, httpx.ConnectError)
            raise CommandFailed(self._unreachable(error), unknown=unknown) from None
        content = _content(answer.content)
        if not answer.is_success or not isinstance(content, dict) or "object" not in content:
            raise _refusal(answer.status_code, content)
        return content

    async def _download(self, path: str, sink: BinaryIO, query: dict[str, object]) -> None:
        import httpx  # noqa: PLC0415  # --help is quick

        try:
            request = self._client.build_request("GET", PREFIX + path, params=_said(query))
            answer = await self._client.send(request, stream=True)
            try:
                if not answer.is_success:
                    raise _refusal(answer.status_code, _content(await answer.aread()))
                async for piece in answer.aiter_bytes():
                    sink.write(piece)
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise CommandFailed(self._unreachable(error)) from None

    def _unreachable(self, error: Exception) -> str:
        return (
            f"the admin API at {self._client.base_url} did not answer: "
            f"{str(error) or type(error).__name__}"
        )


@contextmanager
def connected(target: Target, *, begins: bool = False) -> Iterator[AdminApi]:
    """The admin API: at the URL that was given, of the proxy that runs, or of this process.

    ``begins``: where there is no ledger, one is made. Raises CommandFailed when there is none and the store
    cannot be opened.
    """
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            client = runner.run(_connect(target, stack, begins=begins))
            yield AdminApi(runner, client)
        finally:
            runner.run(stack.aclose())


async def _connect(target: Target, stack: AsyncExitStack, *, begins: bool) -> "httpx.AsyncClient":
    if target.admin_url is not None:
        if not target.admin_url.startswith(("http://", "https://")):
            raise CommandFailed("--admin-url: write it as http://host:port", CHOICE_WRONG)
        return await _client(target.admin_url, _token(target), stack)
    running = await _running(target)
    if running is not None:
        return await _client(running, _token(target), stack)
    return await _in_process(target, stack, begins=begins)


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder. Raises CommandFailed when that cannot be seen."""
    try:
        return path.exists()
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", CHOICE_WRONG) from None


def _token(target: Target) -> str:
    from filature.errors import StoreError  # noqa: PLC0415  # --help is quick
    from filature.store.data_dir import TOKEN_FILE, admin_token  # noqa: PLC0415  # as above

    if target.admin_token is not None:
        return target.admin_token.strip()
    if not is_there(target.folder / TOKEN_FILE):
        raise CommandFailed(
            f"the admin API's token is needed: --admin-token or FILATURE_ADMIN_TOKEN; there is no "
            f"file {TOKEN_FILE} in {target.folder}",
            CHOICE_WRONG,
        )
    try:
        return admin_token(target.folder)
    except StoreError as error:
        raise CommandFailed(error.message) from None


async def _client(url: str, token: str, stack: AsyncExitStack) -> "httpx.AsyncClient":
    import httpx  # noqa: PLC0415  # --help is quick

    try:
        client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=False,
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        raise CommandFailed(f"--admin-url, --admin-token: {error}", CHOICE_WRONG) from None
    return await stack.enter_async_context(client)


async def _running(target: Target) -> str | None:
    """The URL of the proxy that has this database, when it runs and answers."""
    import httpx  # noqa: PLC0415  # --help is quick

    from filature.errors import StoreError  # noqa: PLC0415  # as above
    from filature.store.data_dir import read_note  # noqa: PLC0415  # as above
    from filature.store.database import Database  # noqa: PLC0415  # as above

    note = read_note(target.folder)
    if note is None:
        return None
    if target.database is not None:
        try:
            if Database(target.database).name != note.database:
                return None  # another database is meant
        except StoreError as error:
            raise CommandFailed(error.message, CHOICE_WRONG) from None
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=ALIVE_S) as client:
            answer = await client.get(f"{note.admin_url}/health")
    except httpx.HTTPError:
        return None
    return note.admin_url if answer.is_success else None


async def _in_process(
    target: Target, stack: AsyncExitStack, *, begins: bool
) -> "httpx.AsyncClient":
    import httpx  # noqa: PLC0415  # --help is quick

    from filature.admin.app import create_app  # noqa: PLC0415  # as above
    from filature.cli.in_process import InProcess  # noqa: PLC0415  # as above
    from filature.errors import StoreError  # noqa: PLC0415  # as above
    from filature.store.data_dir import read_note  # noqa: PLC0415  # as above
    from filature.store.database import Database  # noqa: PLC0415  # as above
    from filature.store.store import Store  # noqa: PLC0415  # as above

    try:
        if not begins:
            Database(target.database_url).must_be_there()
        store = await Store.open(target.database_url)
    except StoreError as error:
        message = error.message
        note = read_note(target.folder)
        if error.code == "store_in_use" and note is not None:
            message += (
                f" A proxy runs there as process {note.pid}, and its admin port at "
                f"{note.admin_url} does not answer."
            )
        raise CommandFailed(message) from None
    stack.push_async_callback(store.close)
    token = secrets.token_urlsafe(32)
    client = httpx.AsyncClient(
        transport=InProcess(create_app(store, token=token)),
        base_url="http://this-process",
        headers={"authorization": f"Bearer {token}"},
        timeout=ANSWER_S,
    )
    return await stack.enter_async_context(client)


def _said(query: dict[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}


def _content(body: bytes) -> Any:
    """JSON, whose decimals stay exact."""
    try:
        return json.loads(body, parse_float=Decimal)
    except ValueError:
        return None


def _refusal(status: int, content: Any) -> CommandFailed:
    try:
        error = content["error"]
        message = str(error["message"])
    except (TypeError, KeyError):
        return CommandFailed(f"the answer is not that of an admin API (status {status})")
    if error.get("code") == "unknown_url":
        return CommandFailed("this is no admin API: it has a port of its own (10081)", CHOICE_WRONG)
    if status == 401:
        message = "the admin API does not know this token: give its own by --admin-token or "
        message += "FILATURE_ADMIN_TOKEN, or the data directory that it has by --data-dir"
    return CommandFailed(message, CHOICE_WRONG if status == 400 else FAILED, unknown=status >= 500)
