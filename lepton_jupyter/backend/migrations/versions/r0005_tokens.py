"""Who is let in by an endpoint beside its owner, and for what: hashes, never tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make tokens."""
    op.create_table(
        "tokens",
        sa.Column("endpoint", sa.String, primary_key=True),
        sa.Column("sha256", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("ends_at", sa.Float),
        sa.Column("who", sa.String, nullable=False),
    )
