"""The tables: one schema for SQLite and PostgreSQL. Amounts are nano-credits, times Unix milliseconds.

A change here needs a migration in ``migrations/versions``; a test compares the two.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_BIG: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up INTEGER keys only

ledger_accounts: Final = Table(
    "ledger_accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("debits", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    CheckConstraint("debits >= 0 AND credits >= 0", name="totals"),
    CheckConstraint("kind <> 'client' OR credits >= debits", name="never_negative"),
)

transfers: Final = Table(
    "transfers",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("debit", Text, ForeignKey("ledger_accounts.id"), nullable=False),
    Column("credit", Text, ForeignKey("ledger_accounts.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("fee", BigInteger, nullable=False),
    Column("fee_bp", Integer, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("corrects", Text),
    Column("note", Text, nullable=False),
    UniqueConstraint("id"),
    CheckConstraint("amount >= 0 AND fee >= 0 AND fee <= amount", name="amounts"),
)
Index(
    "ix_transfers_corrects",
    transfers.c.corrects,
    sqlite_where=transfers.c.corrects.is_not(None),
    postgresql_where=transfers.c.corrects.is_not(None),
)

usage_records: Final = Table(
    "usage_records",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=True),  # in the order of their ends
    Column("id", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("key_id", Text),
    Column("started_ms", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("total_cost", BigInteger, nullable=False),
    Column("record", Text, nullable=False),  # the record's log line: JSON
    UniqueConstraint("id"),
)
Index("ix_usage_records_account", usage_records.c.account, usage_records.c.seq)
"""No more indexes than that: each is a page more to write for every settlement."""

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the key
    Column("hint", Text, nullable=False),  # its last characters
    Column("account", Text, ForeignKey("ledger_accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("expires_ms", BigInteger),
    Column("budget", BigInteger),
    Column("budget_period", Text),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrency", BigInteger),
    Column("models", Text),  # JSON array; NULL: all
    Column("max_coefficient", BigInteger),
    UniqueConstraint("digest"),
)

key_spending: Final = Table(
    "key_spending",
    metadata,
    Column("key_id", Text, ForeignKey("api_keys.id"), nullable=False),
    Column("period", Text, nullable=False),  # 2026-11-24, 2026-11, 2026, total
    Column("spent", BigInteger, nullable=False),
    PrimaryKeyConstraint("key_id", "period"),
)

worker_tokens: Final = Table(
    "worker_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the token
    Column("hint", Text, nullable=False),  # its last characters
    Column("worker", Text, nullable=False),  # NAME of the account worker:NAME
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("models", Text),  # JSON array; NULL: all
    UniqueConstraint("digest"),
)

kept_secrets: Final = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

disabled_workers: Final = Table(
    "disabled_workers",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("disabled_ms", BigInteger, nullable=False),
)

payout_requests: Final = Table(
    "payout_requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("worker", Text, nullable=False),  # its name
    Column("amount", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # open, paid, refused
    Column("ended_ms", BigInteger),  # when it was paid or refused
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("state IN ('open', 'paid', 'refused')", name="state"),
)

worker_marks: Final = Table(
    "worker_marks",
    metadata,
    Column("worker", Text, nullable=False),
    Column("model", Text, nullable=False),  # empty: of all
    Column("kind", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    PrimaryKeyConstraint("worker", "model", "kind"),
)

worker_days: Final = Table(
    "worker_days",
    metadata,
    Column("worker", Text, nullable=False),
    Column("day", BigInteger, nullable=False),  # since 1970, by UTC
    Column("ready_ms", BigInteger, nullable=False),
    Column("idle_ms", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    PrimaryKeyConstraint("worker", "day"),
)

tariffs: Final = Table(
    "tariffs",
    metadata,
    Column("model", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column(
        "prompt", BigInteger, nullable=False
    ),  # nano-credits per million tokens, as the next three
    Column("cached", BigInteger, nullable=False),
    Column("completion", BigInteger, nullable=False),
    Column("reasoning", BigInteger, nullable=False),
    Column("request", BigInteger, nullable=False),
    Column("fee_bp", Integer, nullable=False),
    Column("template_tokens", BigInteger, nullable=False),
    Column("media_tokens", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("withdrawn_ms", BigInteger),  # of the latest version: no longer sold
    PrimaryKeyConstraint("model", "version"),
)

aliases: Final = Table(
    "aliases",
    metadata,
    Column("alias", Text, primary_key=True),
    Column("model", Text, nullable=False),
)

coefficients: Final = Table(
    "coefficients",
    metadata,
    Column("engine", Text, nullable=False),
    Column("model", Text, nullable=False),  # * for all of the engine's
    Column("coefficient", BigInteger, nullable=False),  # thousandths
    PrimaryKeyConstraint("engine", "model"),
)

idempotency_keys: Final = Table(
    "idempotency_keys",
    metadata,
    Column("account", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("body_digest", LargeBinary, nullable=False),
    Column("claimed_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # running, settled, left
    Column("content_type", Text),
    Column("answer", LargeBinary),  # of a small unary answer
    PrimaryKeyConstraint("account", "key"),
)
Index("ix_idempotency_keys_claimed_ms", idempotency_keys.c.claimed_ms)
