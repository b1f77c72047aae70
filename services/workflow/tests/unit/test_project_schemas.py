"""What a project may be given."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, ValidationError

from workflow_service.projects.schemas import SETTINGS_MAX_BYTES, ProjectCreate, ProjectPatch


@pytest.mark.parametrize(
    ("model", "rest"), [(ProjectCreate, {"organization_id": uuid4(), "name": "P"}), (ProjectPatch, {})]
)
def test_settings_have_a_size(model: type[BaseModel], rest: dict[str, Any]) -> None:
    """A thousand projects are one page of the list: with settings as large as a body may be, nobody could answer it."""
    largest = "x" * (SETTINGS_MAX_BYTES - len('{"a": ""}'))
    assert model.model_validate({**rest, "settings": {"a": largest}})
    with pytest.raises(ValidationError) as refused:
        model.model_validate({**rest, "settings": {"a": largest + "x"}})
    assert [error["loc"] for error in refused.value.errors()] == [("settings",)]
