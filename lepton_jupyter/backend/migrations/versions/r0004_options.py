"""How an endpoint serves."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give endpoints the column options."""
    op.add_column("endpoints", sa.Column("options", sa.Text, nullable=False, server_default="{}"))
