"""Everything this service can say."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from omoios.vcs.events.v1 import events_pb2 as events
from servicekit.clock import utc_now
from servicekit.db import Tx
from servicekit.telemetry import histogram
from vcs_service.commits.tables import TicketCommit
from vcs_service.merging.tables import Merge
from vcs_service.mirror.tables import Branch, Repository

_merges = histogram(
    "vcs_merge_duration_seconds",
    "From a merge's acceptance to its end.",
    ("outcome",),
    (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)


def repository_ready(tx: Tx, repository: Repository) -> None:
    """The mirror holds the user's branches; also said again when the default branch moved."""
    message = events.RepositoryReady(
        project_id=repository.project_id,
        url=repository.url,
        default_branch=repository.default_branch,
        head_sha=repository.head_sha or "",
        github_owner=repository.github_owner or "",
        github_repo=repository.github_repo or "",
    )
    tx.emit(
        message,
        aggregate_id=repository.project_id,
        version=repository.version,
        organization_id=repository.organization_id,
    )


def repository_failed(tx: Tx, repository: Repository) -> None:
    """The repository could not be mirrored."""
    message = events.RepositoryFailed(
        project_id=repository.project_id, url=repository.url, error=repository.error or ""
    )
    tx.emit(
        message,
        aggregate_id=repository.project_id,
        version=repository.version,
        organization_id=repository.organization_id,
    )


def branch_started(tx: Tx, branch: Branch) -> None:
    """An attempt got its branch."""
    message = events.BranchStarted(
        project_id=branch.project_id,
        task_id=branch.task_id,
        ticket_id=branch.ticket_id,
        attempt=branch.attempt,
        branch=branch.branch,
        base_sha=branch.base_sha,
    )
    tx.emit(message, aggregate_id=branch.task_id, version=branch.attempt, organization_id=branch.organization_id)


def branch_finished(tx: Tx, branch: Branch, head_sha: str) -> None:
    """An attempt's branch stands at its last commit."""
    message = events.BranchFinished(
        project_id=branch.project_id,
        task_id=branch.task_id,
        ticket_id=branch.ticket_id,
        attempt=branch.attempt,
        branch=branch.branch,
        head_sha=head_sha,
    )
    tx.emit(message, aggregate_id=branch.task_id, version=branch.attempt, organization_id=branch.organization_id)


def commits_linked(tx: Tx, project_id: str, organization_id: str, commits: Sequence[TicketCommit]) -> None:
    """Commits belong to tickets from now on."""
    packed = []
    for commit in commits:
        moment = Timestamp()
        moment.FromDatetime(commit.commit_timestamp)
        packed.append(
            events.LinkedCommit(
                sha=commit.commit_sha,
                ticket_id=commit.ticket_id,
                task_id=commit.task_id or "",
                agent_id=commit.agent_id or "",
                message=commit.commit_message[:500],
                files_changed=commit.files_changed or 0,
                insertions=commit.insertions or 0,
                deletions=commit.deletions or 0,
                committed_at=moment,
            )
        )
    message = events.CommitsLinked(project_id=project_id, commits=packed)
    tx.emit(message, aggregate_id=project_id, organization_id=organization_id)


def branch_merged(tx: Tx, merge: Merge, item: dict[str, str], merge_sha: str) -> None:
    """A branch is in the target."""
    message = events.BranchMerged(
        project_id=merge.project_id,
        spec_id=merge.spec_id or "",
        merge_id=merge.id,
        task_id=item["task_id"],
        ticket_id=item["ticket_id"],
        branch=item["branch"],
        target_branch=merge.target_branch,
        merge_sha=merge_sha,
    )
    tx.emit(message, aggregate_id=item["task_id"], organization_id=merge.organization_id)


def branch_conflicted(tx: Tx, merge: Merge, item: dict[str, str], files: Sequence[str]) -> None:
    """A branch could not be merged because both sides changed the same places."""
    message = events.BranchConflicted(
        project_id=merge.project_id,
        spec_id=merge.spec_id or "",
        merge_id=merge.id,
        task_id=item["task_id"],
        ticket_id=item["ticket_id"],
        branch=item["branch"],
        target_branch=merge.target_branch,
        conflicting_files=files,
    )
    tx.emit(message, aggregate_id=item["task_id"], organization_id=merge.organization_id)


def _measure(merge: Merge) -> None:
    outcomes = {item["outcome"] for item in merge.outcomes}
    outcome = next((one for one in ("failed", "conflicted") if one in outcomes or merge.state == one), "merged")
    _merges.labels(outcome).observe(max(0.0, (utc_now() - merge.created_at).total_seconds()))


def merge_finished(tx: Tx, merge: Merge) -> None:
    """Every branch of the list was tried."""
    tx.on_commit(partial(_measure, merge))
    by_outcome: dict[str, list[str]] = {}
    for outcome in merge.outcomes:
        by_outcome.setdefault(outcome["outcome"], []).append(outcome["task_id"])
    message = events.MergeFinished(
        project_id=merge.project_id,
        spec_id=merge.spec_id or "",
        merge_id=merge.id,
        target_branch=merge.target_branch,
        target_sha=merge.target_sha or "",
        merged_task_ids=[*by_outcome.get("merged", []), *by_outcome.get("empty", [])],
        conflicted_task_ids=by_outcome.get("conflicted", []),
        failed_task_ids=by_outcome.get("failed", []),
        error=merge.error or "",
    )
    tx.emit(message, aggregate_id=merge.id, organization_id=merge.organization_id)
