"""Repositories: binding, mirroring, and who may reach them over smart HTTP."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import structlog

from servicekit.auth import Principal, PrincipalType
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import AppError, Kind, internal, invalid
from vcs_service import events
from vcs_service.errors import (
    ATTEMPT_SUPERSEDED,
    MALFORMED_PUSH,
    PROJECT_NOT_FOUND,
    PUSH_REFUSED,
    REPOSITORY_FAILED,
    REPOSITORY_NOT_FOUND,
    REPOSITORY_NOT_READY,
)
from vcs_service.mirror import leases_service as leases
from vcs_service.mirror import rules, store
from vcs_service.mirror import ticket_branches_service as ticket_branches
from vcs_service.mirror.repository_adapters import Mirrors
from vcs_service.mirror.rules import RefusedURL, Source
from vcs_service.mirror.tables import Repository
from vcs_service.settings import Settings

MAX_TRIES = 5
READY = "ready"
FAILED = "failed"

_log = structlog.get_logger(__name__)


class MirrorService:
    """Use cases of repositories."""

    def __init__(self, db: Database, mirrors: Mirrors, settings: Settings) -> None:
        self._db = db
        self.mirrors = mirrors
        self._settings = settings
        self.bound = db.hint("vcs_repositories")

    def source(self, url: str) -> Source:
        """The checked source of a URL or path. Raises 422 naming `repository_url`."""
        roots = [str(root) for root in self._settings.repository_roots]
        resolved = str(Path(url).resolve()) if url.startswith("/") else url
        try:
            return rules.parse_source(resolved, roots=roots, allow_plain_http=not self._settings.is_production)
        except RefusedURL as error:
            raise invalid("repository_url", str(error), url) from error

    async def bind(
        self,
        project_id: str,
        organization_id: str,
        url: str,
        *,
        default_branch: str = "",
        github_owner: str = "",
        github_repo: str = "",
    ) -> Repository:
        """Binds a project to a repository; the same binding again changes nothing. Raises 422 for a refused URL."""
        source = self.source(url)
        if default_branch and (problem := rules.branch_problem(default_branch)):
            raise invalid("default_branch", problem, default_branch)
        async with self._db.uow() as tx:
            known = await store.find(tx, project_id, lock=True)
            if known is not None and known.organization_id != organization_id:
                raise PROJECT_NOT_FOUND()
            same = known is not None and known.url == source.shown and default_branch in ("", known.default_branch)
            if known is not None and same and known.state != FAILED:
                return known
            tx.on_commit(self.bound.committed)
            return await store.bind(
                tx,
                project_id,
                organization_id=organization_id,
                url=source.shown,
                default_branch=default_branch,
                github_owner=github_owner or None,
                github_repo=github_repo or None,
            )

    async def unbind(self, project_id: str) -> None:
        """Forgets the repository of a project; nothing happens at the user's own."""
        async with self._db.uow() as tx:
            await store.remove(tx, project_id)

    async def get_many(self, project_ids: Sequence[str]) -> list[Repository]:
        """The repositories of the projects that have one."""
        async with self._db.reader() as tx:
            return list(await store.find_many(tx, project_ids))

    async def page(self, after: str, limit: int) -> list[Repository]:
        """A page of all repositories by project id."""
        async with self._db.reader() as tx:
            return list(await store.page(tx, after, limit))

    async def require_ready(self, project_id: str) -> Repository:
        """The mirrored repository of a project.

        Raises `vcs.repository_not_found` (404), `.repository_not_ready` (503, retry), `.repository_failed` (409).
        """
        async with self._db.reader() as tx:
            repository = await store.find(tx, project_id)
        if repository is None:
            raise REPOSITORY_NOT_FOUND()
        if repository.state == FAILED:
            raise REPOSITORY_FAILED(f"The repository could not be mirrored: {repository.error}")
        # A mirror that is being fetched again still holds what the last fetch brought.
        if repository.head_sha is None:
            raise REPOSITORY_NOT_READY()
        return repository

    async def read_file(self, project_id: str, ref: str, path: str) -> tuple[bytes, str]:
        """(content, commit) of a file at a branch, or at the default branch."""
        repository = await self.require_ready(project_id)
        branch = ref or repository.default_branch
        if rules.branch_problem(branch) is not None:
            raise invalid("ref", "is not a branch name", ref)
        commit = await self.mirrors.find_base(project_id, branch, branch)
        if commit is None:
            raise REPOSITORY_NOT_FOUND("The repository has no such branch.")
        return await self.mirrors.read_file(project_id, commit, path), commit

    # Mirroring

    async def mirror_due(self) -> int:
        """Fetches every repository that wants it; returns how many. A job of each instance."""
        done = 0
        while True:
            async with self._db.uow() as tx:
                repository = await store.take_due(tx, leases.LEASE)
            if repository is None:
                return done
            async with leases.renewed(functools.partial(self._renew, repository)):
                await self._mirror(repository)
            done += 1

    async def _renew(self, repository: Repository, lease: timedelta) -> None:
        async with self._db.uow() as tx:
            await store.renew(tx, repository.project_id, repository.tries, lease)

    async def refresh(self, repository: Repository, *, timeout_s: float) -> None:
        """Fetches now, for a spec that starts; a failure is logged and leaves the mirror as it was."""
        try:
            await self.mirrors.fetch(repository.project_id, self.source(repository.url), timeout_s=timeout_s)
        except AppError as error:
            _log.warning("refresh_failed", project_id=repository.project_id, error=error.detail)

    async def _mirror(self, repository: Repository) -> None:
        project_id = repository.project_id
        try:
            source = self.source(repository.url)
            branch = repository.default_branch or await self.mirrors.default_branch(source)
            await self.mirrors.fetch(project_id, source)
            head = await self.mirrors.resolve(project_id, rules.UPSTREAM + branch)
            if head is None:
                raise REPOSITORY_FAILED(f"The repository has no branch {branch}.")
        except AppError as error:
            await self._failed(repository, error)
            return
        except Exception:
            _log.exception("mirror_crashed", project_id=project_id, tries=repository.tries)
            await self._failed(repository, internal())
            return
        async with self._db.uow() as tx:
            current = await store.find(tx, project_id, lock=True)
            # Bound to another repository meanwhile: that binding has a fetch of its own.
            if current is None or current.url != repository.url:
                return
            current = await store.change(
                tx, project_id, state=READY, error=None, head_sha=head, default_branch=branch, tries=0, due_at=None
            )
            events.repository_ready(tx, current)

    async def _failed(self, repository: Repository, error: AppError) -> None:
        final = repository.tries >= MAX_TRIES or error.kind in (Kind.INVALID, Kind.REFUSED)
        pause_s = min(2.0**repository.tries, 60.0) * random.uniform(0.75, 1.25)
        _log.warning("mirror_failed", project_id=repository.project_id, tries=repository.tries, error=error.detail)
        async with self._db.uow() as tx:
            current = await store.find(tx, repository.project_id, lock=True)
            if current is None or current.url != repository.url:
                return
            changes: dict[str, object] = {"error": error.detail[:1000]}
            if not final:
                changes["due_at"] = utc_now() + timedelta(seconds=pause_s)
            else:
                changes["due_at"] = None
                if current.head_sha is None:
                    changes["state"] = FAILED
            current = await store.change(tx, repository.project_id, **changes)
            if final:
                events.repository_failed(tx, current)

    async def find(self, tx: Tx, project_id: str) -> Repository | None:
        """The repository of a project, within the caller's transaction."""
        return await store.find(tx, project_id)

    # Smart HTTP

    def check_push(self, data: bytes, allowed_refs: Sequence[str]) -> bool:
        """Whether `data` holds all commands of a push and they write `allowed_refs` only; False when more is needed.

        Raises `vcs.malformed_push` (400), `vcs.push_refused` (403).
        """
        try:
            parsed = rules.parse_commands(data)
        except rules.MalformedPush as error:
            raise MALFORMED_PUSH(str(error)) from error
        if parsed is None:
            return False
        updates, _ = parsed
        # git probes with an empty command list before it sends a large pack.
        problem = rules.push_problem(updates, allowed_refs) if updates else None
        if problem is not None:
            raise PUSH_REFUSED(problem)
        return True

    async def authorize_fetch(self, principal: Principal, project_id: str) -> Path:
        """The repository that the principal may clone. A sandbox reaches its own project only."""
        async with self._db.reader() as tx:
            repository = await store.find(tx, project_id)
            if repository is None:
                raise PROJECT_NOT_FOUND()
            principal.require("project:read", repository.organization_id, PROJECT_NOT_FOUND)
            if principal.type is PrincipalType.SANDBOX and principal.claims.get("project") != project_id:
                raise PROJECT_NOT_FOUND()
        return self.mirrors.git.path(project_id)

    async def authorize_push(self, principal: Principal, project_id: str) -> tuple[Path, list[str]]:
        """(repository, the refs that may be written): the branch of the sandbox's own live attempt, and its ticket's.

        Raises `vcs.attempt_superseded` for an older attempt, `vcs.push_refused` for anyone but a sandbox.
        """
        if principal.type is not PrincipalType.SANDBOX:
            raise PUSH_REFUSED("Only a sandbox pushes, and only the branch of its own attempt.")
        path = await self.authorize_fetch(principal, project_id)
        task_id, attempt = str(principal.claims.get("task")), int(principal.claims.get("attempt") or 0)
        async with self._db.reader() as tx:
            branch = await store.find_branch(tx, task_id, attempt)
            latest = await store.latest_attempt(tx, task_id)
            of_ticket = await ticket_branches.find(tx, branch.ticket_id) if branch is not None else None
        if branch is None or branch.project_id != project_id or branch.sandbox_id != principal.id:
            raise PUSH_REFUSED("This attempt has no branch here.")
        if latest > attempt or branch.state != "started":
            raise ATTEMPT_SUPERSEDED()
        refs = [rules.head_ref(branch.branch)]
        if of_ticket is not None and of_ticket.project_id == project_id and of_ticket.state != ticket_branches.MERGED:
            refs.append(rules.head_ref(of_ticket.branch))
        return path, refs
