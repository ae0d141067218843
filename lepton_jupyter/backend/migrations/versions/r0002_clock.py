"""Schedules, firings, checks, alerts, deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make schedules, firings, checks, alerts, alert_changes, deliveries."""
    op.create_table(
        "schedules",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("generation", sa.String, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("anchor_at", sa.Float, nullable=False),
        sa.Column("next_due_at", sa.Float, index=True),
        sa.Column("n_fired", sa.Integer, nullable=False),
        sa.Column("n_missed", sa.Integer, nullable=False),
    )
    op.create_table(
        "firings",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("schedule", sa.String, nullable=False, index=True),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("run_id", sa.String, index=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("retry_at", sa.Float),
        sa.Column("n_missed", sa.Integer, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("is_closed", sa.Boolean, nullable=False),
        sa.UniqueConstraint("schedule", "due_at", name="one_firing_a_due_time"),
        sa.Index("open_firings", "is_closed", "schedule"),
    )
    op.create_table(
        "checks",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.String, nullable=False, index=True),
        sa.Column("schedule", sa.String, index=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("schedule", sa.String, nullable=False, index=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("n_met", sa.Integer, nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("run_id", sa.String),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("acked_by", sa.String, nullable=False),
        sa.Column("acked_why", sa.String, nullable=False),
        sa.Column("silenced_until", sa.Float),
        sa.Column("silenced_by", sa.String, nullable=False),
        sa.Column("silenced_why", sa.String, nullable=False),
    )
    op.create_table(
        "alert_changes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("alert_id", sa.Integer, nullable=False, index=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("run_id", sa.String),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("why", sa.String, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("alert_id", sa.Integer, index=True),
        sa.Column("run_id", sa.String),
        sa.Column("schedule", sa.String, nullable=False, index=True),
        sa.Column("generation", sa.String, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("picture", sa.String),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Float),
        sa.Column("delivered_at", sa.Float),
        sa.Column("last_error", sa.Text, nullable=False),
    )
