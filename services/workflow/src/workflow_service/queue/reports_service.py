"""What sandboxes of the older protocol report of their attempts, by events."""

from __future__ import annotations

from typing import Any

from servicekit.db import Tx
from workflow_service.queue import rules
from workflow_service.queue.claims_service import AttemptRef, ClaimService


class SandboxReports:
    """Joins the transactions of its callers. Nothing that a report says of a branch is believed unchecked."""

    def __init__(self, claims: ClaimService) -> None:
        self._claims = claims

    async def take(self, tx: Tx, ref: AttemptRef, event_type: str, data: dict[str, Any]) -> None:
        """`agent.started` starts; `continuous.completed` completes or fails by its validation; errors fail.

        vcs finishes the branch of a completed attempt before it merges it, and refuses a head at which it does not
        stand. Raises 400, 404 for an attempt that lost its task.
        """
        if event_type == "agent.started":
            await self._claims.start_one(tx, ref)
        elif event_type == "continuous.completed" and data.get("validation_passed") is True:
            result = {**data, "validation_type": "in_sandbox"}
            branch = rules.attempt_branch(ref.task_id, ref.attempt)
            head_sha = rules.reported_head(branch, data.get("branch_name"), data.get("head_sha"))
            await self._claims.complete_one(tx, ref, result, branch, head_sha, finished=False)
        elif event_type == "continuous.completed":
            reason = data.get("stop_reason") or "validation did not pass"
            await self._claims.fail_one(tx, ref, f"The agent stopped: {reason}", data, False)
        elif event_type in ("agent.failed", "agent.error"):
            await self._claims.fail_one(tx, ref, str(data.get("error") or event_type)[:10_000], data, False)
