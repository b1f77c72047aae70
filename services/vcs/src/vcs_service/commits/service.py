"""Commits of tickets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servicekit.auth import Principal, PrincipalType
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.ids import new_id
from vcs_service import events
from vcs_service.commits import store
from vcs_service.commits.adapters import CommitReader
from vcs_service.commits.rules import CommitFacts
from vcs_service.commits.schemas import CommitOut, CommitsOut, DiffOut, FileDiff, LinkCommit
from vcs_service.commits.tables import TicketCommit
from vcs_service.errors import COMMIT_LINKED, COMMIT_NOT_FOUND, TICKET_NOT_FOUND
from vcs_service.mirror import attempts_service as attempts
from vcs_service.mirror.tables import Branch, TicketBranch
from vcs_service.replica import Tickets

# A statement takes 32,767 parameters, 14 a row; an event holds the ids of as many commits in 100 KB.
LINKED_AT_ONCE = 1_000


class CommitService:
    """Use cases of `/commits`."""

    def __init__(self, db: Database, reader: CommitReader, tickets: Tickets) -> None:
        self._db = db
        self._reader = reader
        self._tickets = tickets

    async def get(self, principal: Principal, sha: str) -> CommitOut:
        """A commit by its full id, or by at least 7 characters of it."""
        return CommitOut.of(await self._find(principal, sha))

    async def diff(self, principal: Principal, sha: str, file_path: str | None) -> DiffOut:
        """What a commit changed: from the repository, else as it was told when the commit was linked."""
        commit = await self._find(principal, sha)
        files: dict[str, dict[str, Any]] | None = None
        if commit.project_id is not None:
            files = await self._reader.diff(commit.project_id, commit.commit_sha)
        if files is None:
            files = commit.files_list or {}
        return DiffOut(
            commit_sha=commit.commit_sha,
            files=[
                FileDiff(
                    path=path,
                    additions=entry.get("additions", 0),
                    deletions=entry.get("deletions", 0),
                    changes=entry.get("additions", 0) + entry.get("deletions", 0),
                    status=entry.get("status", "modified"),
                    patch=entry.get("patch"),
                )
                for path, entry in sorted(files.items())
                if file_path is None or path == file_path
            ],
        )

    async def of_ticket(self, principal: Principal, ticket_id: str, limit: int, offset: int) -> CommitsOut:
        """The commits of a ticket, newest first; a sandbox sees those of its own task's ticket only."""
        ticket = await self._tickets.get(ticket_id)
        async with self._db.reader() as tx:
            principal.require("ticket:read", ticket.organization_id, TICKET_NOT_FOUND)
            if await self._own_ticket(tx, principal) not in (None, ticket_id):
                raise TICKET_NOT_FOUND()
            rows, total = await store.list_by(tx, ticket_id=ticket_id, limit=limit, offset=offset)
        return CommitsOut(commits=[CommitOut.of(row) for row in rows], total=total)

    async def of_agent(self, principal: Principal, agent_id: str, limit: int, offset: int) -> CommitsOut:
        """The commits of an agent in the caller's organizations, newest first."""
        async with self._db.reader() as tx:
            rows, total = await store.list_by(
                tx,
                agent_id=agent_id,
                organization_ids=principal.organizations_with("ticket:read"),
                limit=limit,
                offset=offset,
            )
        return CommitsOut(commits=[CommitOut.of(row) for row in rows], total=total)

    async def link(self, principal: Principal, ticket_id: str, body: LinkCommit) -> CommitOut:
        """Links a commit to a ticket; what the caller does not say is read from the mirror where it has the commit.

        Raises `vcs.commit_already_linked` (409).
        """
        ticket = await self._tickets.get(ticket_id)
        principal.require("ticket:write", ticket.organization_id, TICKET_NOT_FOUND)
        files: dict[str, Any] = {path: change.model_dump() for path, change in (body.files_list or {}).items()}
        known = await self._reader.describe(ticket.project_id, body.commit_sha)
        async with self._db.uow() as tx:
            linked = await store.link(
                tx,
                [
                    {
                        "id": new_id("commit-"),
                        "organization_id": ticket.organization_id,
                        "project_id": ticket.project_id,
                        "ticket_id": ticket_id,
                        "agent_id": body.agent_id,
                        "commit_sha": body.commit_sha,
                        **_told(body, files, known),
                        "link_method": body.link_method,
                    }
                ],
            )
            if not linked:
                raise COMMIT_LINKED()
            events.commits_linked(tx, ticket.project_id, ticket.organization_id, linked)
            return tx.result(CommitOut.of(linked[0]))

    async def between(self, project_id: str, base: str, head: str) -> list[CommitFacts]:
        """The commits that `head` has and `base` lacks, newest first, 5,000 at most."""
        return await self._reader.between(project_id, base, head) if base != head else []

    async def link_branch(self, tx: Tx, branch: Branch, commits: Sequence[CommitFacts]) -> Sequence[TicketCommit]:
        """Links the commits of a finished branch to its ticket, within the caller's transaction."""
        owner = {"task_id": branch.task_id, "agent_id": branch.agent_id}
        return await self._link_all(tx, branch, commits, owner)

    async def link_ticket_branch(
        self, tx: Tx, branch: TicketBranch, commits: Sequence[CommitFacts], *, agent_id: str
    ) -> Sequence[TicketCommit]:
        """Links the commits of a ticket's branch to the ticket, within the caller's transaction."""
        return await self._link_all(tx, branch, commits, {"task_id": None, "agent_id": agent_id})

    async def _link_all(
        self, tx: Tx, branch: Branch | TicketBranch, commits: Sequence[CommitFacts], owner: Mapping[str, str | None]
    ) -> Sequence[TicketCommit]:
        linked: list[TicketCommit] = []
        for start in range(0, len(commits), LINKED_AT_ONCE):
            part = commits[start : start + LINKED_AT_ONCE]
            new = await store.link(tx, [{**_row(branch, commit), **owner} for commit in part])
            if new:
                events.commits_linked(tx, branch.project_id, branch.organization_id, new)
            linked += new
        return linked

    async def count(self, project_ids: Sequence[str]) -> dict[str, int]:
        """Project → number of commits linked to its tickets."""
        async with self._db.reader() as tx:
            return await store.count_by_project(tx, project_ids)

    async def _find(self, principal: Principal, sha: str) -> TicketCommit:
        organizations = None if principal.is_super_admin else principal.organizations_with("ticket:read")
        async with self._db.reader() as tx:
            commit = await store.find(tx, sha, organizations, await self._own_ticket(tx, principal))
        if commit is None:
            raise COMMIT_NOT_FOUND.refused()
        return commit

    async def _own_ticket(self, tx: Tx, principal: Principal) -> str | None:
        """The one ticket that a sandbox works for, empty where it has no branch; None for whom no task limits."""
        if principal.type is not PrincipalType.SANDBOX:
            return None
        branch, _ = await attempts.find(tx, str(principal.claims["task"]), int(principal.claims["attempt"]))
        return "" if branch is None else branch.ticket_id


def _told(body: LinkCommit, files: dict[str, Any], known: CommitFacts | None) -> dict[str, Any]:
    if known is None:
        known = CommitFacts(body.commit_sha, utc_now(), "", "")
        counts: dict[str, Any] = {"files_changed": None, "insertions": None, "deletions": None}
    else:
        counts = {"files_changed": len(known.files), "insertions": known.insertions, "deletions": known.deletions}
    given = body.model_dump(include=set(counts), exclude_none=True)
    return {
        **counts,
        **given,
        "commit_message": body.commit_message or known.message,
        "commit_timestamp": known.committed_at,
        "files_list": files or dict(known.files) or None,
    }


def _row(branch: Branch | TicketBranch, commit: CommitFacts) -> dict[str, Any]:
    return {
        "id": new_id("commit-"),
        "organization_id": branch.organization_id,
        "project_id": branch.project_id,
        "ticket_id": branch.ticket_id,
        "commit_sha": commit.sha,
        "commit_message": commit.message,
        "commit_timestamp": commit.committed_at,
        "files_changed": len(commit.files),
        "insertions": commit.insertions,
        "deletions": commit.deletions,
        "files_list": dict(commit.files),
        "link_method": "branch",
    }
