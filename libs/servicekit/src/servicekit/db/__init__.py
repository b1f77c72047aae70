"""Database access: `Database`, `Tx`, `Base` and the errors of this layer."""

from servicekit.db.base import Base
from servicekit.db.engine import Database
from servicekit.db.failures import DATABASE_UNAVAILABLE, STALE_VERSION
from servicekit.db.transaction import Tx

__all__ = ["DATABASE_UNAVAILABLE", "STALE_VERSION", "Base", "Database", "Tx"]
