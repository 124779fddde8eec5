"""Requests for which no engine has room now: a bounded queue, fair between accounts. Nothing is chosen here."""

import asyncio
import logging
from collections import deque
from typing import Final, Protocol

WAITING_MAX: Final = 4096
"""Requests of all accounts that wait at the same time."""
WAITING_PER_ACCOUNT_MAX: Final = 1024
"""Of these, for one model."""
LOOKED_AT: Final = 8
"""Of a model's accounts, and of an account's requests, the first, whenever a place may be free: each may
accept other prices."""
BUSY_HEADER: Final = b"x-filature-busy"
"""On a worker's 503: it is full, and nothing is wrong."""
BUSY_S: Final = 0.5
"""For which a worker that said so is not asked again."""

log = logging.getLogger(__name__)


class Waiter(Protocol):
    """A request that waits."""

    def try_again(self) -> bool:
        """Whether it need not wait any longer."""


class WaitingRoom:
    """A queue for each model. In it accounts take turns; within an account, who came first goes first."""

    def __init__(self) -> None:
        # by model and account; whose turn is next comes first
        self._queues: dict[str, dict[str, deque[Waiter]]] = {}
        self._looking = False
        self.count = 0

    def waits_for(self, model: str) -> bool:
        """Whether somebody waits for ``model``, so that whoever comes now has to stand behind."""
        return self.count > 0 and model in self._queues

    def enter(self, model: str, account: str, waiter: Waiter) -> bool:
        """Whether there was room."""
        if self.count >= WAITING_MAX:
            return False
        waiters = self._queues.setdefault(model, {}).setdefault(account, deque())
        if len(waiters) >= WAITING_PER_ACCOUNT_MAX:
            return False
        waiters.append(waiter)
        self.count += 1
        return True

    def leave(self, model: str, account: str, waiter: Waiter) -> None:
        """It waits no longer, for whatever reason."""
        accounts = self._queues.get(model, {})
        waiters = accounts.get(account)
        if waiters is None or waiter not in waiters:
            return
        waiters.remove(waiter)
        self.count -= 1
        if not waiters:
            del accounts[account]
            if not accounts:
                del self._queues[model]

    def freed(self) -> None:
        """A place may have become free: who waits is asked before the loop waits again."""
        if self.count and not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        served = True
        while served:
            served = False
            for model in tuple(self._queues):
                if self._serve_model(model):
                    served = True
                    if model in self._queues:  # models that share engines take turns, too
                        self._queues[model] = self._queues.pop(model)

    def _serve_model(self, model: str) -> bool:
        """Whether one of those that wait for it was served."""
        accounts = self._queues.get(model, {})
        for account in tuple(accounts)[:LOOKED_AT]:
            if self._serve_one(model, account):
                return True
            if len(accounts) > LOOKED_AT:  # others behind it may accept other prices
                accounts[account] = accounts.pop(account)
        return False

    def _serve_one(self, model: str, account: str) -> bool:
        accounts = self._queues[model]
        for waiter in tuple(accounts[account])[:LOOKED_AT]:
            try:
                done = waiter.try_again()
            except Exception:
                log.exception("a request that waited is lost")
                done = True
            if done:
                self.leave(model, account, waiter)
                if account in accounts:  # its next turn comes after all others'
                    accounts[account] = accounts.pop(account)
                return True
        return False
