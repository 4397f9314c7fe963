"""Alembic's scripts; `libs/runtime/migrations.py` runs them."""
