"""What a worker keeps of earnings statements: the proxy's own, for itself, and never less than before."""

import errno
import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest

from filature.wire.statement import SigningKey, Statement, key_set, read_unchecked
from filature.worker.statements import KEYS_FILE, STATEMENT_FILE, StatementKeeper, pinned_keys

URL = "https://proxy.example:8443"
KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))


class Proxy:
    """What a keeper asks for keys."""

    def __init__(self, key: SigningKey | None = KEY) -> None:
        self.key = key
        self.asked = 0

    async def keys(self) -> bytes | None:
        self.asked += 1
        return None if self.key is None else json.dumps(key_set([self.key.public])).encode()


@pytest.fixture
def proxy() -> Proxy:
    return Proxy()


@pytest.fixture
def keeper(tmp_path: Path) -> StatementKeeper:
    return StatementKeeper(tmp_path, URL)


def signed(key: SigningKey = KEY, **changed: Any) -> str:
    given = {"sub": "gpu", "iat": 5, "earned_nano": 100, "paid_nano": 30, "requests": 7, "seq": 9}
    return key.sign(Statement.model_validate({"iss": key.public.issuer} | given | changed))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def kept(keeper: StatementKeeper) -> str | None:
    return keeper.path.read_text().strip() if keeper.path.exists() else None


async def test_the_latest_is_kept(keeper: StatementKeeper, proxy: Proxy, tmp_path: Path) -> None:
    assert keeper.path == tmp_path / STATEMENT_FILE
    for text in (signed(), signed(earned_nano=150, seq=10), signed(earned_nano=150, seq=10, iat=9)):
        await keeper.take(text, "gpu", proxy.keys)
        assert kept(keeper) == text
    assert stat.S_IMODE(keeper.path.stat().st_mode) == 0o600
    assert proxy.asked == 1
    assert names_in(tmp_path) == {STATEMENT_FILE, KEYS_FILE}
    await keeper.take(None, "gpu", proxy.keys)
    assert kept(keeper) == text


async def test_one_that_was_kept_is_not_written_again(
    keeper: StatementKeeper, proxy: Proxy
) -> None:
    await keeper.take(signed(), "gpu", proxy.keys)
    keeper.path.unlink()
    await keeper.take(signed(), "gpu", proxy.keys)
    assert kept(keeper) is None


@pytest.mark.parametrize("name", ["earned_nano", "paid_nano", "requests", "seq"])
async def test_a_total_that_fell_is_not_kept(
    keeper: StatementKeeper, proxy: Proxy, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    before = signed()
    await keeper.take(before, "gpu", proxy.keys)
    lower = signed(**{name: getattr(read_unchecked(before), name) - 1})
    again = StatementKeeper(keeper.path.parent, URL)  # as after a restart
    for each in (keeper, again):
        caplog.clear()
        await each.take(lower, "gpu", proxy.keys)
        assert kept(keeper) == before
        assert f"lower than in the one before: {name}" in caplog.text


@pytest.mark.parametrize(
    "text",
    [signed(sub="other"), signed(OTHER), signed(iss=OTHER.public.issuer), "a.b.c", signed()[:-9]],
)
async def test_what_is_not_the_proxys_for_this_worker_is_not_kept(
    keeper: StatementKeeper, proxy: Proxy, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    await keeper.take(text, "gpu", proxy.keys)
    assert kept(keeper) is None
    assert "is not kept" in caplog.text
    await keeper.take(signed(), "gpu", proxy.keys)
    assert kept(keeper) == signed()


async def test_the_first_key_stays(
    keeper: StatementKeeper, proxy: Proxy, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    await keeper.take(signed(), "gpu", proxy.keys)
    proxy.key = OTHER
    later = signed(OTHER, earned_nano=200)
    for each in (keeper, StatementKeeper(tmp_path, URL)):
        caplog.clear()
        each.joined()
        await each.take(later, "gpu", proxy.keys)
        assert kept(keeper) == signed()
        assert "has another key than at first" in caplog.text
    assert pinned_keys(tmp_path / KEYS_FILE) == {URL: [KEY.public]}


async def test_a_key_that_the_owner_lets_go_of_is_replaced(
    keeper: StatementKeeper, proxy: Proxy, tmp_path: Path
) -> None:
    await keeper.take(signed(), "gpu", proxy.keys)
    (tmp_path / KEYS_FILE).unlink()
    proxy.key = OTHER
    again, later = StatementKeeper(tmp_path, URL), signed(OTHER, earned_nano=1)
    await again.take(later, "gpu", proxy.keys)
    assert kept(again) == later
    assert (tmp_path / f"{STATEMENT_FILE}.5").read_text().strip() == signed()


async def test_without_keys_nothing_is_kept_until_they_are_told(
    keeper: StatementKeeper, proxy: Proxy
) -> None:
    proxy.key = None
    await keeper.take(signed(), "gpu", proxy.keys)
    assert kept(keeper) is None
    proxy.key = KEY
    await keeper.take(signed(), "gpu", proxy.keys)
    assert kept(keeper) == signed()


async def test_each_of_several_proxies_has_a_file_and_a_key(tmp_path: Path) -> None:
    urls = {URL: KEY, "http://[::1]:80": OTHER}
    keepers = {url: StatementKeeper(tmp_path, url, alone=False) for url in urls}
    for url, key in urls.items():
        await keepers[url].take(signed(key), "gpu", Proxy(key).keys)
    assert [kept(each) for each in keepers.values()] == [signed(KEY), signed(OTHER)]
    pinned = pinned_keys(tmp_path / KEYS_FILE)
    assert pinned == {url: [key.public] for url, key in urls.items()}
    files = {"statement.proxy.example_8443.jws", "statement.__1_80.jws"}
    assert names_in(tmp_path) == files | {KEYS_FILE}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff"])
async def test_pinned_keys_that_cannot_be_read_are_not_written_over(
    keeper: StatementKeeper,
    proxy: Proxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    (tmp_path / KEYS_FILE).write_bytes(content)
    await keeper.take(signed(), "gpu", proxy.keys)
    assert (tmp_path / KEYS_FILE).read_bytes() == content
    assert kept(keeper) is None
    assert "is not kept" in caplog.text


async def test_a_broken_file_is_replaced(keeper: StatementKeeper, proxy: Proxy) -> None:
    keeper.path.write_bytes(b"\xffbroken")
    await keeper.take(signed(), "gpu", proxy.keys)
    assert kept(keeper) == signed()


async def test_a_folder_that_cannot_be_written_to_is_said_once(
    tmp_path: Path, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = StatementKeeper(tmp_path / "missing", URL)
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        await keeper.take(signed(), "gpu", proxy.keys)
    assert len(caplog.records) == 1
    assert "cannot be kept" in caplog.text


async def test_what_finds_no_room_on_the_disk_leaves_nothing_and_is_kept_later(
    keeper: StatementKeeper, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = signed(), signed(earned_nano=150, seq=10)
    await keeper.take(before, "gpu", proxy.keys)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("filature.worker.statements.os.fsync", full)
        await keeper.take(after, "gpu", proxy.keys)
    assert kept(keeper) == before
    assert names_in(tmp_path) == {STATEMENT_FILE, KEYS_FILE}
    await keeper.take(after, "gpu", proxy.keys)
    assert kept(keeper) == after
