"""The composition root: everything this service is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billing_service import errors
from billing_service.access import ACCESS
from billing_service.billing import routes as billing_routes
from billing_service.billing.service import BillingService
from billing_service.clients import IdentityClient
from billing_service.costs import consumers as costs_consumers
from billing_service.costs import routes as costs_routes
from billing_service.costs.service import CostService
from billing_service.ledger import consumers as ledger_consumers
from billing_service.ledger.plans_service import PlanService
from billing_service.ledger.service import LedgerService
from billing_service.rpc import BillingServicer
from billing_service.settings import Settings
from omoios.billing.v1.billing_pb2_grpc import add_BillingServiceServicer_to_server
from servicekit.db import Database
from servicekit.events import Bus, Resources
from servicekit.host import Job, Service, run
from servicekit.rpc import RpcChannels, RpcServicer


def build(settings: Settings) -> Service:
    """The service with all its parts, not started."""
    db = Database(settings)
    channels = RpcChannels(settings)
    plans = PlanService(db, settings)
    ledger = LedgerService(db, settings, plans, IdentityClient(channels))
    # What no event told of, or told before this projection was there, is asked of its owner.
    resources = Resources(db, channels)
    costs = CostService(db, ledger, resources)
    billing = BillingService(ledger)

    @asynccontextmanager
    async def seeds() -> AsyncIterator[None]:
        await plans.seed()
        await costs.seed()
        yield

    return Service(
        name="billing",
        settings=settings,
        access=ACCESS,
        db=db,
        channels=channels,
        bus=Bus(settings),
        resources=resources,
        routers=[billing_routes.router(billing), costs_routes.router(costs)],
        servicers=[
            RpcServicer(
                add_BillingServiceServicer_to_server,
                BillingServicer(ledger, costs),
                "omoios.billing.v1.BillingService",
            )
        ],
        consumers=[ledger_consumers.consumers(ledger), costs_consumers.consumers(costs)],
        jobs=[
            Job("expire-reservations", every_s=2.0, run=ledger.expire_due, leader=True),
            Job("ask-after-reservations", every_s=60.0, run=ledger.ask_after, leader=True),
            Job("check-ledger", every_s=3600.0, run=ledger.check_ledger, leader=True, timeout_s=1800),
        ],
        lifespans=[seeds],
        errors=errors,
    )


if __name__ == "__main__":
    run(build(Settings()))
