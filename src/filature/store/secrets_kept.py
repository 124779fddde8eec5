"""Secrets that a proxy makes for itself, and has again after a restart."""

import secrets
from typing import Final

from sqlalchemy import Connection, insert, select

from filature.store.schema import kept_secrets
from filature.store.writer import GroupWriter

SECRET_BYTES: Final = 32


async def kept_secret(writer: GroupWriter, name: str) -> bytes:
    """The SECRET_BYTES under ``name``, made when they are first asked for. Raises StoreError."""
    now_ms = writer.wall_ms()
    return await writer.call(lambda connection: _found_or_made(connection, name, now_ms))


def _found_or_made(connection: Connection, name: str, now_ms: int) -> bytes:
    """In one transaction of the only writer: no other can make it meanwhile."""
    table = kept_secrets.c
    found = connection.execute(select(table.value).where(table.name == name)).scalar_one_or_none()
    if found is not None:
        return bytes(found)
    value = secrets.token_bytes(SECRET_BYTES)
    connection.execute(insert(kept_secrets).values(name=name, value=value, created_ms=now_ms))
    return value
