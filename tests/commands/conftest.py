"""The PostgreSQL server of the ledger's tests, for the commands, too."""

from tests.ledger.conftest import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]
