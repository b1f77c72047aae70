"""Requests and answers of `/credentials`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from identity_service.credentials.rules import Provider as Provider
from identity_service.credentials.rules import address_problem
from identity_service.credentials.tables import UserCredential


def _address(value: str) -> str:
    problem = address_problem(value)
    if problem is not None:
        raise ValueError(problem)
    return value.rstrip("/")


# Printable ASCII without spaces: what can stand in a header.
Secret = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", min_length=8, max_length=500)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=100)]
BaseUrl = Annotated[str, Field(max_length=500), AfterValidator(_address)]
Model = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:/@-]*$", max_length=100)]


class SaveCredential(BaseModel):
    """A key to keep. A key of the same name is replaced."""

    api_key: Secret
    name: Name = "default"
    base_url: BaseUrl | None = None
    model: Model | None = None
    is_default: bool | None = None


class ChangeCredential(BaseModel):
    """What changes about a key; null forgets `base_url` or `model`."""

    api_key: Secret | None = None
    base_url: BaseUrl | None = None
    model: Model | None = None
    is_default: bool | None = None
    is_active: bool | None = None


class CredentialOut(BaseModel):
    """A key without the key. `masked_key` shows its last four characters."""

    id: str
    provider: Provider
    name: str
    masked_key: str
    base_url: str | None
    model: str | None
    is_active: bool
    is_default: bool
    last_used_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: UserCredential) -> CredentialOut:
        """The answer for a row."""
        return cls(
            id=row.id,
            provider=Provider(row.provider),
            name=row.name,
            masked_key=f"…{row.hint}",
            base_url=row.base_url,
            model=row.model,
            is_active=row.is_active,
            is_default=row.is_default,
            last_used_at=row.last_used_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class ValidationOut(BaseModel):
    """What the provider says of the key."""

    valid: bool
    message: str


class DeletedOut(BaseModel):
    """One sentence."""

    message: str
