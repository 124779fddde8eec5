"""Marks against workers stay until they are cleared, also after a restart."""

import pytest

from filature.errors import StoreError
from filature.store.marks import SUSPENDED, Mark, Marks
from filature.store.schema import worker_marks
from filature.store.store import Store

ABE = Mark("abe", "silk", "prompt", 2, "{}")
LATER = Mark("abe", "silk", "prompt", 9, '{"samples":8}')
LINEN = Mark("abe", "linen", "prompt", 1, "{}")
GONE = Mark("abe", "", SUSPENDED, 3, "{}")
ZOE = Mark("zoe", "silk", "prompt", 4, "{}")


async def reread(store: Store) -> list[Mark]:
    """As a process that starts now reads them."""
    return (await Marks.load(store.reader, store.writer)).all()


async def test_marked_until_cleared(store: Store) -> None:
    marks = store.marks
    assert marks.all() == []
    for mark in (ABE, LINEN, GONE, ZOE):
        await marks.put(mark)
    assert marks.all() == await reread(store) == [LINEN, ABE, GONE, ZOE]
    assert marks.of("abe") == [LINEN, ABE, GONE]
    assert marks.of("nobody") == []
    await marks.clear("abe")
    assert marks.all() == await reread(store) == [ZOE]
    await marks.clear("abe")
    await marks.clear("nobody")
    assert marks.all() == [ZOE]


async def test_one_of_the_same_kind_is_replaced(store: Store) -> None:
    for mark in (ABE, LATER, LATER):
        await store.marks.put(mark)
    assert store.marks.all() == await reread(store) == [LATER]


async def test_what_cannot_be_stored_is_not_so(store: Store) -> None:
    await store.marks.put(ABE)
    await store.writer.call(worker_marks.drop)
    with pytest.raises(StoreError):
        await store.marks.put(ZOE)
    with pytest.raises(StoreError):
        await store.marks.clear("abe")
    assert store.marks.all() == [ABE]
