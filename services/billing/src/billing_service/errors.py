"""Every error this service answers with."""

from __future__ import annotations

from servicekit.errors import ErrorSpec, Kind

ACCOUNT_NOT_FOUND = ErrorSpec("billing.account_not_found", Kind.NOT_FOUND, "This organization does not exist.")
PLAN_NOT_FOUND = ErrorSpec("billing.plan_not_found", Kind.NOT_FOUND, "There is no such plan.")
PRICE_CHANGED_MEANWHILE = ErrorSpec(
    "billing.price_changed_meanwhile", Kind.CONFLICT, "Another change of this price came first."
)
LIMIT_REACHED = ErrorSpec("billing.limit_reached", Kind.PAYMENT_REQUIRED, "The plan does not allow another execution.")
SCOPE_NOT_FOUND = ErrorSpec("billing.scope_not_found", Kind.NOT_FOUND, "What costs are asked of does not exist.")
SCOPE_ID_NEEDED = ErrorSpec("billing.scope_id_needed", Kind.REFUSED, "This scope needs a scope_id.")
EXECUTION_IS_ANOTHER = ErrorSpec(
    "billing.execution_is_another", Kind.CONFLICT, "This execution id belongs to another organization."
)
