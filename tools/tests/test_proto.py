"""Drift, style and compatibility of the contracts, each planted once in a small tree."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tools import proto

Plant = Callable[[Mapping[str, str]], Path]

MESSAGES = """syntax = "proto3";

package omoios.shop.v1;

message Order {
  string id = 1;
  int64 amount = 2;
}
"""
SERVICE = """syntax = "proto3";

package omoios.shop.v1;

import "omoios/shop/v1/order.proto";

service ShopService {
  rpc GetOrder(GetOrderRequest) returns (GetOrderResponse);
}

message GetOrderRequest {
  string id = 1;
}

message GetOrderResponse {
  Order order = 1;
}
"""
BUF = "version: v2\nmodules:\n  - path: .\nlint:\n  use: [STANDARD]\nbreaking:\n  use: [FILE]\n"


@pytest.fixture
def tree(plant: Plant) -> Path:
    return plant(
        {
            "proto/buf.yaml": BUF,
            "proto/omoios/shop/v1/order.proto": MESSAGES,
            "proto/omoios/shop/v1/shop.proto": SERVICE,
        }
    )


def commit(root: Path, *more: str) -> None:
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "state"], check=True)
    subprocess.run([*git, "branch", "-M", "main"], check=True)
    for tag in more:
        subprocess.run([*git, "tag", tag], check=True)


def test_generated_code_is_complete_and_stable(tree: Path, tmp_path: Path) -> None:
    contracts = tree / "contracts"
    assert proto.write(tree / "proto", contracts) > 0
    made = {path.relative_to(contracts).as_posix() for path in contracts.rglob("*") if path.is_file()}
    assert {
        "omoios/__init__.py",
        "omoios/py.typed",
        "omoios/shop/v1/__init__.py",
        "omoios/shop/v1/order_pb2.py",
        "omoios/shop/v1/order_pb2.pyi",
        "omoios/shop/v1/shop_pb2_grpc.py",
        "omoios/shop/v1/shop_pb2_grpc.pyi",
    } <= made
    assert "omoios/shop/v1/order_pb2_grpc.py" not in made
    assert proto.drift(tree / "proto", contracts) == []
    assert proto.write(tree / "proto", contracts) == 0


def test_drift_is_found_and_mended(tree: Path) -> None:
    contracts = tree / "contracts"
    proto.write(tree / "proto", contracts)
    (contracts / "omoios/shop/v1/order_pb2.py").write_text("# by hand\n")
    (contracts / "omoios/shop/v1/shop_pb2.pyi").unlink()
    (contracts / "omoios/extra.py").write_text("")
    assert proto.drift(tree / "proto", contracts) == [
        "differs: omoios/shop/v1/order_pb2.py",
        "missing: omoios/shop/v1/shop_pb2.pyi",
        "not generated from any proto: omoios/extra.py",
    ]
    assert proto.write(tree / "proto", contracts) == 3
    assert proto.drift(tree / "proto", contracts) == []


def test_style_is_checked(tree: Path) -> None:
    proto.lint(tree / "proto")
    (tree / "proto/omoios/shop/v1/order.proto").write_text(MESSAGES.replace("string id", "string orderId"))
    with pytest.raises(proto.ProtoError, match="lower_snake_case"):
        proto.lint(tree / "proto")


def test_breaking_change_against_main_is_found(tree: Path) -> None:
    assert proto.breaking(tree) == []
    commit(tree)
    assert proto.breaking(tree) == ["main"]
    order = tree / "proto/omoios/shop/v1/order.proto"
    order.write_text(MESSAGES.replace("}\n", "  string note = 3;\n}\n"))
    assert proto.breaking(tree) == ["main"]
    order.write_text(MESSAGES.replace("  int64 amount = 2;\n", ""))
    with pytest.raises(proto.ProtoError, match=r'(?s)incompatible with main:.*field "2"'):
        proto.breaking(tree)


def test_the_newest_release_is_promised_too(tree: Path) -> None:
    commit(tree, "v1.0.0")
    order = tree / "proto/omoios/shop/v1/order.proto"
    order.write_text(MESSAGES.replace("  int64 amount = 2;\n", ""))
    commit(tree)
    with pytest.raises(proto.ProtoError, match=r"incompatible with v1\.0\.0"):
        proto.breaking(tree)
