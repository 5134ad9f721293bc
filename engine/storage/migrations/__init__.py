"""Alembic's folder: `env.py` and one file per migration in `versions/`.

A new migration is drafted against a database at the newest revision with
`python -m alembic -c <any ini with script_location> revision --autogenerate`, then read and edited by a person;
`tests/integration/storage/test_migrations.py` shows that migrations equal the models.
"""
