"""What an endpoint has beside its live version."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give endpoints the column beside."""
    op.add_column("endpoints", sa.Column("beside", sa.Text))
