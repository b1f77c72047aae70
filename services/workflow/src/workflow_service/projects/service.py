"""Use cases of projects."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy.exc import IntegrityError

from omoios.vcs.v1 import vcs_pb2
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import AppError, invalid
from servicekit.ids import new_id
from workflow_service import events
from workflow_service.clients import VcsClient
from workflow_service.errors import ORGANIZATION_NOT_FOUND, PROJECT_NAME_TAKEN, PROJECT_NOT_FOUND
from workflow_service.projects import rules, store
from workflow_service.projects.schemas import (
    ProjectArchived,
    ProjectCreate,
    ProjectList,
    ProjectOut,
    ProjectPatch,
    project_out,
)
from workflow_service.projects.tables import Project

_STATES = {
    vcs_pb2.REPOSITORY_STATE_MIRRORING: "mirroring",
    vcs_pb2.REPOSITORY_STATE_READY: "ready",
    vcs_pb2.REPOSITORY_STATE_FAILED: "failed",
}
BIND_BATCH = 20
_EDITABLE = (
    "name",
    "description",
    "default_phase_id",
    "status",
    "github_owner",
    "github_repo",
    "github_connected",
    "settings",
    "autonomous_execution_enabled",
    "repository_url",
    "default_branch",
)


class ProjectFollower(Protocol):
    """A room above that keeps something in step with projects."""

    async def project_changed(self, tx: Tx, project: Project, *, limit_changed: bool) -> None:
        """Status, autonomy, limit or repository of this project changed, in this transaction."""


class ProjectService:
    """Projects, and the repository each is bound to.

    A project is committed before its repository is bound: the row says `binding`, a job binds it and tries again, so
    that neither a crash nor an absent vcs leaves half of a project.
    """

    def __init__(self, db: Database, vcs: VcsClient, followers: Sequence[ProjectFollower] = ()) -> None:
        self._db = db
        self._vcs = vcs
        self._followers = followers
        self.bindings = db.hint("workflow_bindings")
        """Wakes the job that binds: a project waits for its repository."""

    async def create(self, principal: Principal, body: ProjectCreate, phases: Sequence[str]) -> ProjectOut:
        """A new project. Raises 404 for a foreign organization, 409 for a name that is taken."""
        organization_id = str(body.organization_id)
        principal.require("project:write", organization_id, missing=ORGANIZATION_NOT_FOUND)
        settings = body.settings or {}
        project = Project(
            id=new_id("project-"),
            organization_id=organization_id,
            created_by=principal.user_id,
            name=body.name,
            description=body.description,
            default_phase_id=_phase(body.default_phase_id, phases),
            github_owner=body.github_owner or None,
            github_repo=body.github_repo or None,
            settings=settings,
            max_concurrent_tasks=rules.concurrent_tasks(settings),
            repository_url=body.repository_url,
            default_branch=body.default_branch,
            repository_state="binding" if body.repository_url else "none",
        )
        try:
            async with self._db.uow() as tx:
                await store.add(tx, project)
                if project.repository_url:
                    tx.on_commit(self.bindings.committed)
                events.project_created(tx, project)
                return tx.result(project_out(project))
        except IntegrityError as error:
            raise PROJECT_NAME_TAKEN(name=body.name) from error

    async def page(self, principal: Principal, status: str | None, limit: int, offset: int) -> ProjectList:
        """The projects of the caller's organizations, newest first."""
        async with self._db.reader() as tx:
            rows, total = await store.page(tx, principal.organizations_with("project:read"), status, limit, offset)
        return ProjectList(projects=[project_out(row) for row in rows], total=total)

    async def get(self, principal: Principal, project_id: str) -> ProjectOut:
        """One project."""
        async with self._db.reader() as tx:
            return project_out(await self.require(tx, principal, "project:read", project_id))

    async def require(
        self,
        tx: Tx,
        principal: Principal,
        permission: str,
        project_id: str,
        *,
        lock: bool = False,
        share: bool = False,
    ) -> Project:
        """The project, if the caller has `permission` there; 404 where it is unknown or foreign.

        `share`: it does not change until this transaction has ended.
        """
        project = await store.get(tx, project_id, lock=lock, share=share)
        if project is None:
            raise PROJECT_NOT_FOUND()
        principal.require(permission, project.organization_id, missing=PROJECT_NOT_FOUND)
        return project

    async def newest_of(self, tx: Tx, organization_ids: Sequence[str], limit: int) -> list[str]:
        """The newest projects of these organizations that are not archived."""
        return await store.newest_of(tx, organization_ids, limit)

    async def find(self, tx: Tx, project_id: str) -> Project | None:
        """The project, for rooms that have checked access by another row."""
        return await store.get(tx, project_id)

    async def of_repository(self, tx: Tx, principal: Principal, owner: str, repo: str) -> Project:
        """The caller's oldest project on this repository, else a new one in his first organization."""
        organizations = sorted(principal.organizations_with("project:write"))
        if not organizations:
            raise ORGANIZATION_NOT_FOUND.refused()
        found = await store.of_repository(tx, organizations, owner, repo)
        if found is not None:
            return found
        # The name may be that of an archived project, or of one on another repository.
        for number in itertools.count(1):
            project = await store.add_if_free(
                tx,
                {
                    "id": new_id("project-"),
                    "organization_id": organizations[0],
                    "created_by": principal.user_id,
                    "name": f"{owner}/{repo}" if number == 1 else f"{owner}/{repo} ({number})",
                    "github_owner": owner,
                    "github_repo": repo,
                    "github_connected": True,
                },
            )
            if project is not None:
                events.project_created(tx, project)
                return project
            # Or somebody made this project meanwhile.
            found = await store.of_repository(tx, organizations, owner, repo)
            if found is not None:
                return found
        raise AssertionError("unreachable: one of the names is free")

    async def patch(
        self, principal: Principal, project_id: str, body: ProjectPatch, phases: Sequence[str]
    ) -> ProjectOut:
        """Change what is given; null means unchanged. Raises 409 for a name that is taken."""
        given = {name: value for name in _EDITABLE if (value := getattr(body, name)) is not None}
        if "status" in given and given["status"] not in rules.STATUSES:
            raise invalid("status", f"must be one of {', '.join(rules.STATUSES)}", given["status"])
        if "default_phase_id" in given:
            _phase(given["default_phase_id"], phases)
        limit = rules.concurrent_tasks(given["settings"]) if "settings" in given else None
        try:
            async with self._db.uow() as tx:
                project = await self.require(tx, principal, "project:write", project_id, lock=True)
                changes = {name: value for name, value in given.items() if getattr(project, name) != value}
                if project.repository_state == "failed" and "repository_url" in given:
                    # Naming the repository again has it tried again, also where it is the same one.
                    changes["repository_url"] = given["repository_url"]
                if changes:
                    limit_changed = "settings" in changes and project.max_concurrent_tasks != limit
                    if limit_changed:
                        project.max_concurrent_tasks = limit
                    if "repository_url" in changes or "default_branch" in changes:
                        project.repository_state = (
                            "binding" if given.get("repository_url", project.repository_url) else "none"
                        )
                        project.repository_error, project.bind_attempts, project.bind_after = None, 0, None
                        tx.on_commit(self.bindings.committed)
                    await self._change(tx, project, changes, limit_changed=limit_changed)
                return tx.result(project_out(project))
        except IntegrityError as error:
            raise PROJECT_NAME_TAKEN() from error

    async def archive(self, principal: Principal, project_id: str) -> ProjectArchived:
        """Archive; its tasks are claimed no more. Archiving twice is one archive."""
        async with self._db.uow() as tx:
            project = await self.require(tx, principal, "project:write", project_id, lock=True)
            if project.status != "archived":
                await self._change(tx, project, {"status": "archived"}, tell=False)
                events.project_archived(tx, project)
            return tx.result(ProjectArchived(success=True, message="Project archived"))

    async def commits(self, project_id: str) -> int:
        """Commits linked to the project's tickets; 0 while vcs is away, for a count is no reason to refuse a page."""
        try:
            return (await self._vcs.count_commits([project_id])).get(project_id, 0)
        except AppError:
            return 0

    async def bind_due(self) -> int:
        """Bind repositories that wait for it, and ask after mirrors that take long. Returns how many were tried."""
        async with self._db.reader() as tx:
            due = await store.due_bindings(tx, BIND_BATCH)
        await asyncio.gather(*(self._bind(project) for project in due))
        return len(due)

    async def _bind(self, project: Project) -> None:
        assert project.repository_url is not None
        state: str | None = None
        error: str | None = None
        repository: vcs_pb2.Repository | None = None
        try:
            repository = await self._vcs.bind_repository(
                project.id,
                project.organization_id,
                project.repository_url,
                project.default_branch or "",
                project.github_owner or "",
                project.github_repo or "",
            )
            state, error = _STATES.get(repository.state, "mirroring"), repository.error or None
        except AppError as refused:
            error = rules.refusal(refused)
            if not rules.may_bind_again(refused.kind):
                state = "failed"
        async with self._db.uow() as tx:
            row = await store.get(tx, project.id, lock=True)
            if row is None or row.version != project.version or row.repository_state not in ("binding", "mirroring"):
                return
            row.bind_after = await store.now(tx) + timedelta(seconds=rules.bind_delay_s(row.bind_attempts))
            row.bind_attempts += 1
            if repository is not None:
                # What vcs said of the repository that was bound before this one is out of date from here on.
                row.repository_version = max(row.repository_version, repository.version)
            if state is None or state == row.repository_state:
                row.repository_error = error
            elif state == "ready" and repository is not None:
                await self._repository_ready(
                    tx, row, repository.default_branch, repository.head_sha, repository.version
                )
            else:
                await self._change(tx, row, {"repository_state": state, "repository_error": error})

    async def repository_ready(
        self, tx: Tx, project_id: str, url: str, default_branch: str, head_sha: str, owner: str, repo: str, version: int
    ) -> None:
        """The mirror of the project's repository can be used; word of an older mirror than the known one is nothing."""
        project = await store.get(tx, project_id, lock=True)
        if project is None or _out_of_date(project, version, url, default_branch):
            return
        if owner and repo:
            project.github_owner, project.github_repo, project.github_connected = owner, repo, True
        await self._repository_ready(tx, project, default_branch, head_sha, version)

    async def _repository_ready(
        self, tx: Tx, project: Project, default_branch: str, head_sha: str, version: int
    ) -> None:
        project.repository_version = version
        await self._change(
            tx,
            project,
            {
                "repository_state": "ready",
                "repository_error": None,
                "default_branch": default_branch or project.default_branch,
                "head_sha": head_sha or project.head_sha,
            },
        )

    async def repository_failed(self, tx: Tx, project_id: str, url: str, error: str, version: int) -> None:
        """The repository could not be mirrored; one that was ready before stays usable."""
        project = await store.get(tx, project_id, lock=True)
        if project is None or project.repository_state not in ("binding", "mirroring"):
            return
        if _out_of_date(project, version, url):
            return
        project.repository_version = version
        await self._change(tx, project, {"repository_state": "failed", "repository_error": error})

    async def _change(
        self, tx: Tx, project: Project, changes: Mapping[str, Any], *, tell: bool = True, limit_changed: bool = False
    ) -> None:
        for name, value in changes.items():
            setattr(project, name, value)
        project.version += 1
        project.updated_at = await store.now(tx)
        await tx.session.flush()
        for follower in self._followers:
            await follower.project_changed(tx, project, limit_changed=limit_changed)
        if tell:
            events.project_updated(tx, project, changes)


def _phase(phase_id: str, phases: Sequence[str]) -> str:
    if phase_id not in phases:
        raise invalid("default_phase_id", f"must be one of {', '.join(phases)}", phase_id)
    return phase_id


def _out_of_date(project: Project, version: int, url: str, branch: str = "") -> bool:
    """Whether this is about a mirror that the project has left.

    Until vcs has taken a binding, what it says may still be of the one before, under a version that is new here.
    """
    if project.repository_state != "binding":
        return version < project.repository_version
    if version <= project.repository_version:
        return True
    other_url = bool(url and project.repository_url) and not rules.same_repository(url, project.repository_url or "")
    return other_url or bool(branch and project.default_branch and branch != project.default_branch)
