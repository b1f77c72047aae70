"""The declarative base of every service's tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, MetaData, Text
from sqlalchemy.orm import DeclarativeBase

# Constraint names are fixed so that migrations can address them and `check_migrations` sees no difference.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

_METADATA: dict[str, MetaData] = {}


def metadata_for(package: str) -> MetaData:
    """Return the tables of one top-level package, for example `workflow_service`.

    Tables are grouped by package because two services may own tables of one name (`replica_projects`) and both may be
    imported into one process, which only happens in tests.
    """
    return _METADATA.setdefault(package, MetaData(naming_convention=NAMING_CONVENTION))


def all_metadata() -> Sequence[MetaData]:
    """Return the tables of every package imported so far."""
    return list(_METADATA.values())


class Base(DeclarativeBase):
    """Base of every table; the naming convention is set, `str` is TEXT and `datetime` is TIMESTAMPTZ."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {str: Text(), datetime: DateTime(timezone=True)}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "metadata" not in cls.__dict__:
            cls.metadata = metadata_for(cls.__module__.partition(".")[0])
        super().__init_subclass__(**kwargs)
