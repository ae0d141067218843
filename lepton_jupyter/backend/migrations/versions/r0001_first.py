"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make runs, versions, aliases, endpoints, releases."""
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("submitted_at", sa.Float, nullable=False),
        sa.Column("kind", sa.String, nullable=False, index=True),
        sa.Column("model", sa.String, index=True),
        sa.Column("parent", sa.String, index=True),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("view", sa.Text, nullable=False),
        sa.Column("mlflow_run_id", sa.String),
        sa.Column("mlflow_offset", sa.Integer, nullable=False),
        sa.Column("is_recorded", sa.Boolean, nullable=False, index=True),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("model", sa.String, nullable=False, index=True),
        sa.Column("number", sa.Integer),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("view", sa.Text, nullable=False),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
    )
    op.create_table(
        "aliases",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String, nullable=False, index=True),
        sa.Column("alias", sa.String, nullable=False),
        sa.Column("run_id", sa.String),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("is_recorded", sa.Boolean, nullable=False),
    )
    op.create_table(
        "endpoints",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("is_wanted", sa.Boolean, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("follows", sa.String),
        sa.Column("is_held", sa.Boolean, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("release", sa.Integer, nullable=False),
        sa.Column("process", sa.Text),
        sa.Column("warning", sa.Text, nullable=False),
    )
    op.create_table(
        "releases",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("endpoint", sa.String, nullable=False, index=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("why", sa.String, nullable=False),
    )
