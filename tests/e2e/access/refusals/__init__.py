"""Every refusal by state that is provoked through the gateway, and those that cannot be."""

from __future__ import annotations

from collections.abc import Mapping

from tests.e2e.access.refusals import agents, identity, others, workflow
from tests.e2e.access.refusals.refusal import Refusal

REFUSALS: tuple[Refusal, ...] = (*identity.REFUSALS, *workflow.REFUSALS, *agents.REFUSALS, *others.REFUSALS)

NEVER_PUBLIC: Mapping[str, str] = {
    "billing.execution_is_another": "Only workflow reserves, by RPC, under an execution id that it has just made.",
    "billing.price_changed_meanwhile": "Prices are changed by the operator's command, no operation does it.",
    "database.stale_version": "No public operation names the version that it wants to change.",
    "vcs.dependencies_conflict": "Only agents starts branches of attempts, by RPC; users read why their task waits.",
    "vcs.merge_is_another": "Only workflow asks for merges by RPC, under an id that it has just made.",
    "vcs.repository_failed": "Operations on branches tell it in their answer of 200; the others refuse at workflow.",
}
"""Codes of conflicts that no public operation answers with, and why."""

__all__ = ["NEVER_PUBLIC", "REFUSALS", "Refusal"]
