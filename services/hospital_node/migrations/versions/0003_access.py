"""Requests, approvals, rules, the privacy ledger."""

import sqlalchemy as sa
from alembic import op

from libs.runtime.sql_append_only import append_only_ddl, append_only_removal_ddl

revision = "0003"
down_revision = "0002"

_LEDGER = "privacy_ledger"


def upgrade() -> None:
    """The tables of `adapters/access_tables.py` take the place of proposals, which were of one study each."""
    op.drop_table("proposals")
    _requests()
    _approvals()
    _studies()
    _rules()
    _ledger()
    op.create_table(
        "model_uses",
        sa.Column("model_id", sa.String(200), primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("told", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Without the ledger. Export it first."""
    for statement in append_only_removal_ddl(_LEDGER, op.get_bind().dialect.name):
        op.execute(statement)
    for table in ("model_uses", _LEDGER, "access_rules", "studies", "approvals", "access_requests"):
        op.drop_table(table)
    op.create_table(
        "proposals",
        sa.Column("study_id", sa.String(200), primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("requested_by", sa.String, nullable=False),
        sa.Column("dataset_name", sa.String, nullable=False),
        sa.Column("plan_hash", sa.String, nullable=False),
        sa.Column("training_plan", sa.LargeBinary, nullable=False),
        sa.Column("hospitals", sa.String, nullable=False),
        sa.Column("readers", sa.String, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )


def _requests() -> None:
    op.create_table(
        "access_requests",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("request_id", sa.String(200), nullable=False, unique=True),
        sa.Column("origin", sa.String(20), nullable=False),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("dataset_name", sa.String(200), nullable=False),
        sa.Column("content_hash", sa.String, nullable=False),
        sa.Column("dataset_version", sa.Integer, nullable=False),
        sa.Column("requester", sa.String, nullable=False),
        sa.Column("requested_by", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("asked", sa.String, nullable=False),
        sa.Column("uses_asked", sa.Integer, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plan_hash", sa.String(64), nullable=False),
        sa.Column("training_plan", sa.LargeBinary, nullable=False),
        sa.Column("model_id", sa.String(200), nullable=False),
        sa.Column("planned", sa.String, nullable=True),
        sa.Column("statement_hash", sa.String(64), nullable=False),
        sa.Column("study_id", sa.String(200), nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("hospitals", sa.String, nullable=False),
        sa.Column("readers", sa.String, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("decision_reason", sa.String, nullable=False),
        sa.Column("decided_by", sa.String, nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
    )


def _approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("approval_id", sa.String(64), nullable=False, unique=True),
        sa.Column("request_id", sa.String(200), nullable=False, unique=True),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("dataset_name", sa.String(200), nullable=False),
        sa.Column("requester", sa.String, nullable=False, index=True),
        sa.Column("granted", sa.String, nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rule_id", sa.String(64), nullable=False, index=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
    )


def _studies() -> None:
    op.create_table(
        "studies",
        sa.Column("study_id", sa.String(200), primary_key=True),
        sa.Column("statement_id", sa.String(500), nullable=False, unique=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("requester", sa.String, nullable=False),
        sa.Column("requested_by", sa.String, nullable=False),
        sa.Column("dataset_name", sa.String(200), nullable=False),
        sa.Column("content_hash", sa.String, nullable=False),
        sa.Column("plan_hash", sa.String(64), nullable=False),
        sa.Column("training_plan", sa.LargeBinary, nullable=False),
        sa.Column("hospitals", sa.String, nullable=False),
        sa.Column("readers", sa.String, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("approval_id", sa.String(64), nullable=False, index=True),
        sa.Column("reason", sa.String, nullable=False),
    )


def _rules() -> None:
    op.create_table(
        "access_rules",
        sa.Column("rule_id", sa.String(64), primary_key=True),
        sa.Column("purposes", sa.String, nullable=False),
        sa.Column("dataset_names", sa.String, nullable=False),
        sa.Column("plan_hashes", sa.String, nullable=False),
        sa.Column("requesters", sa.String, nullable=False),
        sa.Column("at_most", sa.String, nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
    )


def _ledger() -> None:
    op.create_table(
        _LEDGER,
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("dataset_name", sa.String(200), nullable=False, index=True),
        sa.Column("consumer", sa.String, nullable=False),
        # Decimal text: no database may round what was spent.
        sa.Column("epsilon", sa.String, nullable=False),
        sa.Column("delta", sa.String, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sa.Column("approval_id", sa.String(64), nullable=False, index=True),
        sa.Column("study_id", sa.String(200), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    for statement in append_only_ddl(_LEDGER, op.get_bind().dialect.name):
        op.execute(statement)
