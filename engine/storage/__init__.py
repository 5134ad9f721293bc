"""Postgres: models, named queries per aggregate, migrations. The only room that imports SQLAlchemy."""
