"""Who may call what of this service."""

from __future__ import annotations

from servicekit.auth import Access, AccessTable

_READ = Access("billing:read")

ACCESS = AccessTable(
    operations={
        "costs.list_records": _READ,
        "costs.get_summary": _READ,
        "costs.forecast": Access(),
        "costs.list_account_costs": _READ,
        "costs.account_cost_summary": _READ,
        "billing.get_account": _READ,
        "billing.usage_summary": _READ,
        "billing.check_execution": _READ,
    },
    rpcs={
        "ReserveExecution": frozenset({"workflow"}),
        "BatchGetReservations": frozenset({"workflow", "monitoring"}),
        "BatchGetLimits": frozenset({"workflow", "agents", "monitoring", "identity"}),
        "GetCostSummary": frozenset({"monitoring"}),
    },
    consumers={
        "ledger": "opens accounts, confirms and settles reservations",
        "costs": "prices usage and charges it",
    },
)
