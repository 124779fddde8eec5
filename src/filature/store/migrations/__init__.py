"""The schema's history, as Alembic's scripts: each changes what the one before it left."""
