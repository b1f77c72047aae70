"""Merges: accepted at once, carried out by a job, one writer for each target."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import structlog

from servicekit.db import Database, Tx
from servicekit.errors import AppError, Kind, internal, invalid
from vcs_service import events
from vcs_service.errors import GIT_FAILED, MERGE_IS_ANOTHER, PROJECT_NOT_FOUND
from vcs_service.merging import rules, store
from vcs_service.merging.adapters import Merged, Merger
from vcs_service.merging.tables import Merge
from vcs_service.mirror import attempts_service as attempts
from vcs_service.mirror import leases_service as leases
from vcs_service.mirror.rules import ZERO_SHA, head_ref
from vcs_service.mirror.service import MirrorService
from vcs_service.mirror.tables import Repository

_log = structlog.get_logger(__name__)


class FinishAttempt(Protocol):
    """The room above that knows how attempts at tasks end."""

    async def __call__(self, project_id: str, task_id: str, attempt: int, head_sha: str) -> str:
        """The commit to merge; empty where there is none. Raises 409 when the branch stands elsewhere."""


class MergingService:
    """Use cases of merges."""

    def __init__(self, db: Database, mirror: MirrorService, merger: Merger) -> None:
        self._db = db
        self._mirror = mirror
        self._merger = merger
        self._finish: FinishAttempt | None = None
        self.accepted = db.hint("vcs_merges")

    def finish_by(self, finish: FinishAttempt) -> None:
        """Have `finish` finish the branch of an attempt before it is merged, where its worker did not."""
        self._finish = finish

    async def start(
        self,
        merge_id: str,
        project_id: str,
        organization_id: str,
        spec_id: str,
        target_branch: str,
        items: Sequence[dict[str, Any]],
    ) -> str:
        """Accepts a merge; the same id and content again is the same merge. Raises `vcs.merge_is_another` (409)."""
        problem = rules.problem_of(target_branch, items)
        if problem is not None:
            raise invalid(*problem)
        if not merge_id:
            raise invalid("merge_id", "is needed")
        async with self._db.uow() as tx:
            repository = await self._mirror.find(tx, project_id)
            if repository is None or repository.organization_id != organization_id:
                raise PROJECT_NOT_FOUND()
            tx.on_commit(self.accepted.committed)
            merge = await store.add(
                tx,
                id=merge_id,
                project_id=project_id,
                organization_id=organization_id,
                spec_id=spec_id or None,
                target_branch=target_branch,
                items=list(items),
            )
            if merge is None:
                known = await store.find(tx, merge_id)
                if known is None or (known.project_id, known.target_branch, known.items) != (
                    project_id,
                    target_branch,
                    list(items),
                ):
                    raise MERGE_IS_ANOTHER()
        return merge_id

    async def merge_now(
        self, project_id: str, target_branch: str, heads: Sequence[tuple[str, str]], *, squash: bool = False
    ) -> Merged:
        """Merges commits, each with its message, into a branch of ours that exists, while the caller waits.

        Ends at the first that conflicts. Returns what came of the last one that was tried; there is one at least.
        """
        merged = None
        for head, message in heads:
            merged = await self._merger.merge(project_id, target_branch, head, message, squash=squash)
            if merged.outcome == "conflicted":
                break
        assert merged is not None
        return merged

    async def conflicts(self, project_id: str, ours: str, theirs: str) -> list[str]:
        """The paths on which merging two commits would conflict; nothing is changed."""
        _, paths = await self._merger.try_merge(project_id, ours, theirs)
        return paths

    async def get_many(self, ids: Sequence[str]) -> list[Merge]:
        """The merges that exist among `ids`."""
        async with self._db.reader() as tx:
            return list(await store.find_many(tx, ids))

    async def run_open(self) -> int:
        """Carries out every merge that waits; returns how many. A job of each instance."""
        done = 0
        while True:
            async with self._db.uow() as tx:
                merge = await store.take_open(tx, leases.LEASE)
            if merge is None:
                return done
            async with leases.renewed(functools.partial(self._renew, merge)):
                await self._run(merge)
            done += 1

    async def _renew(self, merge: Merge, lease: timedelta) -> None:
        async with self._db.uow() as tx:
            await store.renew(tx, merge.id, merge.tries, lease)

    async def _run(self, merge: Merge) -> None:
        try:
            repository = await self._mirror.require_ready(merge.project_id)
            await self._ensure_target(merge, repository)
            for item in rules.remaining(merge.items, merge.outcomes):
                merge = await self._merge_item(merge, item)
            target = await self._mirror.mirrors.resolve(merge.project_id, head_ref(merge.target_branch))
        except AppError as error:
            await self._failed(merge, error)
            return
        except Exception:
            _log.exception("merge_crashed", merge_id=merge.id, tries=merge.tries)
            await self._failed(merge, internal())
            return
        async with self._db.uow() as tx:
            merge = await store.finish(tx, merge.id, state="finished", target_sha=target)
            events.merge_finished(tx, merge)

    async def _ensure_target(self, merge: Merge, repository: Repository) -> None:
        mirrors = self._mirror.mirrors
        ref = head_ref(merge.target_branch)
        if await mirrors.resolve(merge.project_id, ref) is not None:
            return
        base = await mirrors.find_base(merge.project_id, merge.target_branch, repository.default_branch)
        if base is None:
            raise PROJECT_NOT_FOUND("The repository has no branch to merge into.")
        await mirrors.set_ref(merge.project_id, ref, base, ZERO_SHA)

    async def _merge_item(self, merge: Merge, item: dict[str, Any]) -> Merge:
        outcome: dict[str, Any] = {"task_id": item["task_id"], "merge_sha": "", "conflicting_files": [], "error": ""}
        try:
            if (problem := rules.item_problem(item)) is not None:
                raise GIT_FAILED(problem)
            head = item["head_sha"]
            if self._finish is not None:
                head = await self._finish(merge.project_id, item["task_id"], item["attempt"], head)
            merged = Merged("empty", "")
            if head:
                message = rules.message_of(item, merge.target_branch)
                merged = await self._merger.merge(merge.project_id, merge.target_branch, head, message)
            outcome["outcome"] = merged.outcome
            outcome["merge_sha"] = merged.sha if merged.outcome == "merged" else ""
            outcome["conflicting_files"] = list(merged.files)
        except AppError as error:
            if error.kind is Kind.DEADLINE:
                raise
            _log.warning("branch_not_merged", merge_id=merge.id, task_id=item["task_id"], error=error.detail)
            outcome |= {"outcome": "failed", "error": error.detail}
        async with self._db.uow() as tx:
            current = await store.find(tx, merge.id, lock=True)
            assert current is not None
            if item in rules.remaining(current.items, current.outcomes):
                current = await store.lease(tx, merge.id, leases.LEASE, outcomes=[*current.outcomes, outcome])
                await self._announce(tx, current, item, outcome)
            return current

    async def _announce(self, tx: Tx, merge: Merge, item: dict[str, Any], outcome: dict[str, Any]) -> None:
        if outcome["outcome"] in ("merged", "empty"):
            events.branch_merged(tx, merge, item, outcome["merge_sha"])
            await attempts.mark(tx, item["task_id"], item["attempt"], "merged")
        elif outcome["outcome"] == "conflicted":
            events.branch_conflicted(tx, merge, item, outcome["conflicting_files"])
            await attempts.mark(tx, item["task_id"], item["attempt"], "conflicted")

    async def _failed(self, merge: Merge, error: AppError) -> None:
        """Tries again later, or gives up and says so: nothing waits for ever."""
        final = merge.tries >= rules.MAX_TRIES or error.kind in (Kind.NOT_FOUND, Kind.INVALID)
        _log.warning("merge_failed", merge_id=merge.id, tries=merge.tries, final=final, error=error.detail)
        async with self._db.uow() as tx:
            current = await store.find(tx, merge.id, lock=True)
            assert current is not None
            if not final:
                pause = timedelta(seconds=min(2**merge.tries, 60))
                await store.lease(tx, merge.id, pause, state="queued", error=error.detail)
                return
            failed = [
                {
                    "task_id": item["task_id"],
                    "outcome": "failed",
                    "merge_sha": "",
                    "conflicting_files": [],
                    "error": error.detail,
                }
                for item in rules.remaining(current.items, current.outcomes)
            ]
            current = await store.finish(
                tx, merge.id, state="failed", outcomes=[*current.outcomes, *failed], error=error.detail
            )
            events.merge_finished(tx, current)
