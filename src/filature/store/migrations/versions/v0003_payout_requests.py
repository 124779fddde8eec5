"""Workers that an operator disabled, and payouts that workers asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "disabled_workers",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("disabled_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker", name=op.f("pk_disabled_workers")),
    )
    op.create_table(
        "payout_requests",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("amount > 0", name=op.f("ck_payout_requests_amount")),
        sa.CheckConstraint(
            "state IN ('open', 'paid', 'refused')", name=op.f("ck_payout_requests_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payout_requests")),
    )


def downgrade() -> None:
    op.drop_table("payout_requests")
    op.drop_table("disabled_workers")
