"""Pure double entry: accounts, transfers, two-phase holds, invariants. No database, no I/O, no prices.

The model is TigerBeetle's: money moves only by immutable transfers, which are idempotent by their
id, and what may have to be paid is first held, then posted, voided or expired. What answers cost is
decided elsewhere (``answer/pricing.py``); here amounts come in as integers.

::

    command ──▶ decide(state, command) ──▶ Result(outcome, effects) ──▶ state.apply(effects)
    commands.py    decide.py                outcomes.py        │            state.py
                                                               └──▶ rows for a store

**The seam for a store.** ``decide`` changes nothing and ``State.apply`` decides nothing;
``Ledger`` (``book.py``) does one after the other. A store that is the ledger's only writer keeps a
``Ledger`` in memory and

1. runs a command, and queues ``result.effects`` where ``effects.is_durable``: an account opened, a
   transfer and the balance changes that belong to it. The changes are differences, so a batch can
   sum them per account before it writes them. Openings and ends of holds are in the effects, too,
   for whoever wants to record them; nothing of them needs to be stored to rebuild the balances;
2. commits what is queued in the order in which it was decided, so that whatever dies, what is stored
   is what the first n commands left. Every such beginning satisfies the invariants. After a commit
   that failed nothing later may be committed before it;
3. answers for a command only after its commit returned, and after that lets go of the transfers
   (``Ledger.forget``), which the store's ``History`` finds from then on;
4. at start makes a ``Ledger`` of the stored accounts with their balances, or replays all transfers (``replay``).
   Holds are not stored: a request that left no trace counts as voided.

``History`` is synchronous, for it is asked within a decision. A store that can only be awaited
looks up ``transfer_ids_read(state, command)`` first and shows what it found. Transfers never
change, and what was decided in the meantime is in the state, so what was found stays true.

**One namespace of ids.** A charge has the id of its hold, which is that of its request. So the
primary key of the table of transfers alone keeps a request from being charged twice, or both
to the client and to ``shortfall``, even after the memory of the hold is gone.

**Several proxies** (leases) are not here yet. A lease is a hold that is stored, and the holds of a
proxy will be decided against the lease by the same functions.
"""
