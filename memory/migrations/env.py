"""Alembic's entry point: it runs the migrations on the connection and in the transaction of `migrate`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
