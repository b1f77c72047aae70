"""The merge of the services' documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway_edge import openapi
from gateway_edge.app import document as edge_document
from gateway_edge.openapi import MergeError, dumps, merge, operations_of
from gateway_edge.pending import Operation
from gateway_edge.routes import EDGE, load

BEARER = {"type": "http", "scheme": "bearer"}


def described(path: str, operation_id: str, **components: Any) -> dict[str, Any]:
    """A service's document with one operation that answers an ``Item``."""
    schema = {"$ref": "#/components/schemas/Item"}
    return {
        "openapi": "3.1.0",
        "tags": [{"name": operation_id.split(".")[0]}],
        "paths": {
            path: {
                "get": {
                    "operationId": operation_id,
                    "tags": [operation_id.split(".")[0]],
                    "security": [{"bearer": []}],
                    "responses": {"200": {"content": {"application/json": {"schema": schema}}}},
                }
            },
            "/readyz": {"get": {"operationId": "probe"}},
        },
        "components": {"schemas": {"Item": {"type": "object"}}, "securitySchemes": {"bearer": BEARER}, **components},
    }


def test_equal_names_do_not_collide() -> None:
    merged = merge(
        {
            "identity": described("/api/v1/users", "users.list"),
            "vcs": described("/api/v1/commits", "commits.list", schemas={"Item": {"type": "string"}}),
        },
        load(),
    )
    assert merged["components"]["schemas"] == {"identity_Item": {"type": "object"}, "vcs_Item": {"type": "string"}}
    for path, name in (("/api/v1/users", "identity_Item"), ("/api/v1/commits", "vcs_Item")):
        content = merged["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
        assert content["schema"] == {"$ref": f"#/components/schemas/{name}"}
    assert merged["components"]["securitySchemes"] == {"bearer": BEARER}
    assert merged["paths"]["/api/v1/users"]["get"]["security"] == [{"bearer": []}]
    assert "/readyz" not in merged["paths"]
    assert merged["x-tagGroups"] == [{"name": "identity", "tags": ["users"]}, {"name": "vcs", "tags": ["commits"]}]


def test_every_kind_of_reference_follows() -> None:
    document = described("/api/v1/users", "users.list")
    document["components"]["schemas"]["Pet"] = {
        "oneOf": [{"$ref": "#/components/schemas/Item"}],
        "discriminator": {"propertyName": "kind", "mapping": {"item": "#/components/schemas/Item"}},
        "properties": {"$ref": {"type": "string"}, "security": {"type": "array"}, "mapping": {"type": "object"}},
        "$defs": {"x": {"$ref": "https://elsewhere.example/schema"}},
    }
    schema = merge({"identity": document}, load())["components"]["schemas"]["identity_Pet"]
    assert schema["oneOf"] == [{"$ref": "#/components/schemas/identity_Item"}]
    assert schema["discriminator"]["mapping"] == {"item": "#/components/schemas/identity_Item"}
    assert schema["properties"]["$ref"] == {"type": "string"}
    assert schema["properties"]["security"] == {"type": "array"}
    assert schema["$defs"]["x"]["$ref"] == "https://elsewhere.example/schema"


def test_different_security_schemes_of_one_name_are_kept_apart() -> None:
    other = described(
        "/api/v1/commits", "commits.list", securitySchemes={"bearer": {"type": "http", "scheme": "basic"}}
    )
    merged = merge({"identity": described("/api/v1/users", "users.list"), "vcs": other}, load())
    assert set(merged["components"]["securitySchemes"]) == {"identity_bearer", "vcs_bearer"}
    assert merged["paths"]["/api/v1/commits"]["get"]["security"] == [{"vcs_bearer": []}]


def test_documents_stay_as_they_were() -> None:
    document = described("/api/v1/users", "users.list")
    before = json.dumps(document)
    merge({"identity": document}, load())
    assert json.dumps(document) == before


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ({"identity": described("/api/v1/commits", "a.b")}, "identity declares /api/v1/commits, .* vcs"),
        ({"identity": described("/api/v1/nothing", "a.b")}, "gives to nobody"),
        (
            {"identity": described("/api/v1/users", "a.b"), "vcs": described("/api/v1/commits", "a.b")},
            "operation id a.b: both identity and vcs",
        ),
    ],
)
def test_contradictions_are_refused(documents: dict[str, Any], message: str) -> None:
    with pytest.raises(MergeError, match=message):
        merge(documents, load())


def test_the_edge_documents_what_it_serves() -> None:
    merged = merge({EDGE: edge_document()}, load())
    assert set(operations_of(merged)) == {Operation("GET", "/"), Operation("GET", "/health")}


def test_the_check_fails_on_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(openapi, "current", lambda: {"openapi": "3.1.0", "paths": {}})
    file = tmp_path / "openapi.json"
    assert openapi.main(["check", "--file", str(file)]) == 1
    assert openapi.main(["write", "--file", str(file)]) == 0
    assert openapi.main(["check", "--file", str(file)]) == 0
    file.write_text(dumps({"openapi": "3.1.0", "paths": {"/x": {}}}))
    assert openapi.main(["check", "--file", str(file)]) == 1
    assert "python -m gateway_edge.openapi write" in capsys.readouterr().err


def test_the_committed_document_is_whole() -> None:
    """Every reference leads somewhere, and every path goes to a service that the rules name."""
    text = openapi.OPENAPI.read_text(encoding="utf-8")
    document = json.loads(text)
    components = document["components"]

    def references(value: Any) -> list[str]:
        if isinstance(value, list):
            return [found for item in value for found in references(item)]
        if not isinstance(value, dict):
            return []
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in references(item)]

    for reference in references(document):
        kind, name = reference.removeprefix("#/components/").split("/")[:2]
        assert name in components[kind], reference
    for path in document["paths"]:
        assert load().owner_of(path) is not None, path
