"""What vcs says about merges, and billing about executions whose end it missed."""

from __future__ import annotations

from omoios.billing.events.v1 import events_pb2 as billing
from omoios.vcs.events.v1 import events_pb2 as vcs
from servicekit.db import Tx
from servicekit.events import Consumers, Event
from workflow_service.coordination.merges_service import MergeQueue
from workflow_service.coordination.service import CoordinationService


def consumers(merges: MergeQueue, coordination: CoordinationService) -> Consumers:
    """Merged, conflicted and finished; each names the merge it belongs to, so that an old one changes nothing."""
    c = Consumers("coordination")

    @c.on(vcs.BranchMerged)
    async def branch_merged(tx: Tx, event: Event[vcs.BranchMerged]) -> None:
        await merges.branch_merged(tx, event.body.merge_id, event.body.task_id)

    @c.on(vcs.BranchConflicted)
    async def branch_conflicted(tx: Tx, event: Event[vcs.BranchConflicted]) -> None:
        body = event.body
        await merges.branch_conflicted(tx, body.merge_id, body.task_id, body.branch, body.conflicting_files)

    @c.on(vcs.MergeFinished)
    async def merge_finished(tx: Tx, event: Event[vcs.MergeFinished]) -> None:
        body = event.body
        await merges.merge_finished(tx, body.merge_id, body.merged_task_ids, body.failed_task_ids, body.error)

    @c.on(vcs.CommitsLinked)
    async def commits_linked(tx: Tx, event: Event[vcs.CommitsLinked]) -> None:
        commits = [(one.task_id, one.insertions, one.deletions) for one in event.body.commits]
        await coordination.commits_linked(tx, commits)

    @c.on(billing.ReservationUnsettled)
    async def reservation_unsettled(tx: Tx, event: Event[billing.ReservationUnsettled]) -> None:
        body = event.body
        await coordination.restate(tx, body.execution_id, body.spec_id, body.project_id, event.organization_id)

    return c
