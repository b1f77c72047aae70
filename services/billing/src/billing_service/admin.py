"""Operators' commands, run with the service's environment: `python -m billing_service.admin <command>`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from billing_service.clients import IdentityClient
from billing_service.costs.service import CostService
from billing_service.costs.tables import PriceVersion
from billing_service.ledger.plans_service import PlanService
from billing_service.ledger.service import LedgerService
from billing_service.ledger.tables import PlanTier
from billing_service.settings import Settings
from servicekit.db import Database
from servicekit.errors import AppError
from servicekit.events import Resources
from servicekit.rpc import RpcChannels

PLAN_COLUMNS = ("price_micro_usd", "workflows_limit", "agents_limit", "storage_limit_gb", "included_micro_usd")


def _price_line(price: PriceVersion) -> str:
    return f"{price.provider} {price.model} version {price.version}: {price.prompt} {price.completion}"


def _plan_line(plan: PlanTier) -> str:
    columns = " ".join(f"{name}={getattr(plan, name)}" for name in PLAN_COLUMNS)
    return f"{plan.tier} version {plan.version}: {columns}"


async def _run(settings: Settings, options: argparse.Namespace) -> list[str]:
    db = Database(settings)
    plans = PlanService(db, settings)
    ledger = LedgerService(db, settings, plans, IdentityClient(RpcChannels(settings)))
    costs = CostService(db, ledger, Resources(db))
    await db.start()
    try:
        if options.command == "prices":
            return [_price_line(price) for price in await costs.prices()]
        if options.command == "set-price":
            changed = await costs.change_price(options.provider, options.model, options.prompt, options.completion)
            return [_price_line(changed)]
        if options.command == "move":
            account = await ledger.move(options.organization, options.plan)
            return [f"{account.organization_id} is on {account.tier}"]
        if options.command == "plans":
            return [_plan_line(plan) for plan in await plans.tiers()]
        values = {name: getattr(options, name) for name in PLAN_COLUMNS}
        given = {name: value for name, value in values.items() if value is not None}
        return [_plan_line(await plans.change(options.plan, given))]
    finally:
        await db.close()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m billing_service.admin", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("prices", help="the newest prices: micro-USD per million prompt and completion tokens")
    price = commands.add_parser("set-price", help="add the next version of a price; * * is what is not listed")
    price.add_argument("provider")
    price.add_argument("model")
    price.add_argument("prompt", type=int, help="micro-USD per million prompt tokens, or seconds of omoios sandbox")
    price.add_argument("completion", type=int, help="micro-USD per million completion tokens")
    commands.add_parser("plans", help="what plans cost and allow; -1 is unlimited")
    plan = commands.add_parser("set-plan", help="change a plan for all of its accounts")
    plan.add_argument("plan")
    for name in PLAN_COLUMNS:
        plan.add_argument(f"--{name.replace('_', '-')}", dest=name, type=int)
    move = commands.add_parser("move", help="put an organization on another plan")
    move.add_argument("organization")
    move.add_argument("plan")
    return made


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        lines = asyncio.run(_run(Settings(), options))
    except AppError as error:
        fields = "".join(f" {field.loc[-1]} {field.msg}." for field in error.fields)
        sys.stderr.write(f"{error.code}: {error.detail}{fields}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
