"""Each house rule is broken once in a planted service, and the check names it; a lawful service passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tools.checks import rooms

Plant = Callable[[Mapping[str, str]], Path]
SERVICE = "services/shop/src/shop_service"

LAWFUL = {
    "__init__.py": "",
    "main.py": "import grpc\nfrom shop_service.orders.routes import router\nfrom shop_service.orders.service import Orders\n",
    "settings.py": "from servicekit.settings import ServiceSettings\n",
    "access.py": "from servicekit.auth.access import AccessTable\n",
    "events.py": "from omoios.vcs.events.v1 import events_pb2\nfrom shop_service.orders.tables import Order\n",
    "clients.py": "from omoios.vcs.v1 import vcs_pb2\nfrom servicekit.rpc import RpcChannels\n",
    "replica.py": "import sqlalchemy as sa\nfrom servicekit.db import Base\n",
    "errors.py": "from servicekit.errors import ErrorSpec, Kind\n",
    "goods/__init__.py": "",
    "goods/tables.py": "from servicekit.db import Base\nclass Good(Base):\n    __tablename__ = 'goods'\n",
    "goods/store.py": "import sqlalchemy as sa\n",
    "goods/service.py": "from shop_service.goods.tables import Good\nclass Goods: ...\n",
    "orders/__init__.py": "",
    "orders/schemas.py": "from pydantic import BaseModel\nfrom shop_service.orders.rules import STATES\n",
    "orders/routes.py": (
        "from fastapi import APIRouter, Depends\n"
        "from shop_service.orders.schemas import OrderOut\nfrom shop_service.orders.service import Orders\n"
        "def router(orders):\n    r = APIRouter()\n"
        "    @r.get('/orders')\n    async def list_orders(page=Depends(int)): ...\n    return r\n"
    ),
    "orders/rules.py": "import datetime as dt\nfrom urllib.parse import urlsplit\nSTATES = ('open',)\n",
    "orders/tables.py": "from servicekit.db import Base\nclass Order(Base):\n    __tablename__ = 'orders'\n",
    "orders/store.py": (
        "import sqlalchemy as sa\nfrom shop_service.goods.tables import Good\nfrom shop_service.orders.tables import Order\n"
        "ALL = 'SELECT * FROM orders JOIN goods USING (id)'\n"
        "async def add(tx):\n    await tx.session.execute(sa.insert(Order))\n"
        "async def all(tx):\n    return await tx.session.execute(sa.select(Order, Good))\n"
    ),
    "orders/adapters.py": "import subprocess\nimport httpx2\n",
    "orders/claims_service.py": "class Claims: ...\n",
    "orders/service.py": (
        '"""SELECT in a docstring is prose."""\nimport asyncio\nfrom servicekit.db import Database\n'
        "from shop_service.goods.service import Goods\nfrom shop_service.orders import rules, store\n"
        "from shop_service.orders.claims_service import Claims\n"
        "class Orders:\n    async def create(self):\n        async with self.db.uow() as tx:\n            await store.add(tx)\n"
    ),
    "orders/consumers.py": "from omoios.vcs.events.v1 import events_pb2\nfrom shop_service.orders.service import Orders\n",
    "orders/jobs.py": "from shop_service.orders.service import Orders\n",
}


def planted(plant: Plant, **changes: str) -> list[str]:
    tree = {f"{SERVICE}/{name}": text for name, text in LAWFUL.items()}
    for name, text in changes.items():
        tree[f"{SERVICE}/{name}"] = text
    return [str(finding).removeprefix(f"{SERVICE}/") for finding in rooms.check(plant(tree))]


def test_lawful_service_passes(plant: Plant) -> None:
    assert planted(plant) == []


@pytest.mark.parametrize(
    ("file", "text", "finding"),
    [
        ("orders/routes.py", "from shop_service.orders.store import add\n", "routes must not import store of its room"),
        ("orders/routes.py", "from shop_service.orders import store\n", "routes must not import store of its room"),
        ("orders/routes.py", "from . import store\n", "routes must not import store of its room"),
        (
            "orders/routes.py",
            "from shop_service.goods.service import Goods\n",
            "routes must not import service of room goods",
        ),
        ("orders/routes.py", "import sqlalchemy\n", "routes must not import sqlalchemy"),
        ("orders/routes.py", "from servicekit.db import Tx\n", "routes must not import servicekit.db"),
        ("orders/routes.py", "from omoios.vcs.v1 import vcs_pb2\n", "routes must not import omoios"),
        (
            "orders/schemas.py",
            "from shop_service.orders.service import Orders\n",
            "schemas must not import service of its room",
        ),
        (
            "orders/consumers.py",
            "from shop_service.orders.store import add\n",
            "consumers must not import store of its room",
        ),
        ("orders/jobs.py", "from shop_service.orders import tables\n", "jobs must not import tables of its room"),
        ("orders/rpc.py", "from shop_service.orders.rules import STATES\n", "rpc must not import rules of its room"),
        ("orders/service.py", "import fastapi\n", "service must not import fastapi (HTTP lives in routes)"),
        (
            "orders/service.py",
            "from sqlalchemy import select\n",
            "service must not import sqlalchemy (SQL lives in store",
        ),
        ("orders/service.py", "import grpc\n", "service must not import grpc"),
        (
            "orders/service.py",
            "import httpx2\n",
            "service must not import httpx2 (an outside thing is touched in adapters only)",
        ),
        ("orders/service.py", "from shop_service.goods import store\n", "service must not import store of room goods"),
        ("orders/service.py", "async def f(tx):\n    q = 'SELECT 1'\n", "SQL text outside store"),
        ("orders/service.py", "async def f(t):\n    q = f'DELETE FROM {t}'\n", "SQL text outside store"),
        (
            "orders/service.py",
            "import asyncio\nasync def f():\n    await asyncio.create_subprocess_exec('git')\n",
            "processes are started",
        ),
        (
            "orders/service.py",
            "from shop_service.orders.routes import router\n",
            "service must not import routes of its room",
        ),
        (
            "orders/service.py",
            "from other_service.main import build\n",
            "a service never imports another: other_service",
        ),
        ("orders/rules.py", "import os\n", "rules must not import os (pure files do no I/O)"),
        ("orders/rules.py", "import asyncpg\n", "rules must not import asyncpg"),
        ("orders/rules.py", "async def decide(): ...\n", "rules are plain decisions: no async code"),
        ("orders/rules.py", "def now():\n    return open('x')\n", "rules are plain decisions: open()"),
        (
            "orders/rules.py",
            "import datetime as dt\ndef f():\n    return dt.datetime.now(dt.UTC)\n",
            "dt.datetime.now() reads",
        ),
        ("orders/rules.py", "from servicekit.db import Tx\n", "rules must not import servicekit.db"),
        ("orders/rules.py", "from shop_service.orders.store import add\n", "rules must not import store of its room"),
        ("orders/pricing.py", "import socket\n", "rules must not import socket"),
        (
            "orders/tables.py",
            "from shop_service.orders.service import Orders\n",
            "tables must not import service of its room",
        ),
        (
            "orders/adapters.py",
            "from shop_service.orders.store import add\n",
            "adapters must not import store of its room",
        ),
        ("orders/adapters.py", "from servicekit.db import Tx\n", "adapters must not import servicekit.db"),
        (
            "orders/consumers.py",
            "async def f(db):\n    async with db.uow() as tx: ...\n",
            "transactions are opened in service only: .uow()",
        ),
        (
            "orders/store.py",
            "async def f(db):\n    async with db.reader() as tx: ...\n",
            "transactions are opened in service only",
        ),
        (
            "orders/store.py",
            "import sqlalchemy as sa\nfrom shop_service.goods.tables import Good\nasync def f(tx):\n    sa.update(Good)\n",
            "a store writes its own tables only: Good belongs to room goods",
        ),
        (
            "orders/store.py",
            "Q = '''\nINSERT INTO goods (id)\n'''\n",
            "a store writes its own tables only: goods belongs to room goods",
        ),
        (
            "orders/store.py",
            "from shop_service.goods.service import Goods\n",
            "store must not import service of room goods",
        ),
        ("orders/routes.py", "@r.get('/x')\ndef sync(): ...\n", "sync must be async"),
        (
            "orders/routes.py",
            "from fastapi import Depends\ndef dep(): ...\nasync def f(d=Depends(dep)): ...\n",
            "dep must be async",
        ),
        (
            "goods/service.py",
            "from shop_service.orders.service import Orders\n",
            "rooms form a cycle: goods → orders → goods",
        ),
        ("helpers.py", "", "no such file at a service's top"),
        (
            "settings.py",
            "from shop_service.orders.service import Orders\n",
            "settings.py must not import service of room orders",
        ),
        ("access.py", "from servicekit.db import Tx\n", "access.py must not import servicekit.db"),
        ("main.py", "from starlette.middleware.base import BaseHTTPMiddleware\n", "BaseHTTPMiddleware is banned"),
    ],
)
def test_planted_violation_is_found(plant: Plant, file: str, text: str, finding: str) -> None:
    found = planted(plant, **{file: text})
    assert any(finding in line and line.startswith(file) for line in found), found


def test_middleware_is_banned_in_the_kit_too(plant: Plant) -> None:
    root = plant({"libs/kit/src/kit/http.py": "from starlette.middleware.base import BaseHTTPMiddleware as B\n"})
    assert [finding.line for finding in rooms.check(root)] == [1]


def test_files_named_after_a_role_have_it() -> None:
    assert rooms.role_of(("service",)) == "service"
    assert rooms.role_of(("claims_service",)) == "service"
    assert rooms.role_of(("routes", "members")) == "routes"
    assert rooms.role_of(("pricing",)) == "rules"
