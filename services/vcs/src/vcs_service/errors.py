"""Every error this service answers with."""

from __future__ import annotations

from servicekit.errors import ErrorSpec, Kind

PROJECT_NOT_FOUND = ErrorSpec("vcs.project_not_found", Kind.NOT_FOUND, "This project does not exist.")
TICKET_NOT_FOUND = ErrorSpec("vcs.ticket_not_found", Kind.NOT_FOUND, "This ticket does not exist.")
REPOSITORY_NOT_FOUND = ErrorSpec("vcs.repository_not_found", Kind.NOT_FOUND, "This project has no repository.")
REPOSITORY_NOT_READY = ErrorSpec(
    "vcs.repository_not_ready", Kind.UNAVAILABLE, "The repository is still being mirrored.", 2.0
)
REPOSITORY_FAILED = ErrorSpec("vcs.repository_failed", Kind.CONFLICT, "The repository could not be mirrored.")
COMMIT_NOT_FOUND = ErrorSpec("vcs.commit_not_found", Kind.NOT_FOUND, "This commit does not exist.")
COMMIT_LINKED = ErrorSpec("vcs.commit_already_linked", Kind.CONFLICT, "This commit is linked to the ticket already.")
BRANCH_NOT_FOUND = ErrorSpec("vcs.branch_not_found", Kind.NOT_FOUND, "This branch does not exist.")
FILE_NOT_FOUND = ErrorSpec("vcs.file_not_found", Kind.NOT_FOUND, "There is no such file at this place.")
FILE_TOO_LARGE = ErrorSpec("vcs.file_too_large", Kind.TOO_LARGE, "This file is too large to be read.")
ATTEMPT_SUPERSEDED = ErrorSpec("vcs.attempt_superseded", Kind.REFUSED, "Another attempt at this task has taken over.")
HEAD_MISMATCH = ErrorSpec("vcs.head_mismatch", Kind.CONFLICT, "The branch does not stand at this commit.")
PUSH_REFUSED = ErrorSpec("vcs.push_refused", Kind.FORBIDDEN, "This push is not allowed.")
MALFORMED_PUSH = ErrorSpec("vcs.malformed_push", Kind.REFUSED, "The body is not a push.")
HOST_UNKNOWN = ErrorSpec("vcs.host_unknown", Kind.UNAVAILABLE, "The host of the repository is not known now.", 5.0)
HOST_REFUSED = ErrorSpec("vcs.host_refused", Kind.REFUSED, "Repositories cannot be fetched from this host.")
GIT_FAILED = ErrorSpec("vcs.git_failed", Kind.CONFLICT, "git failed.")
GIT_TIMEOUT = ErrorSpec("vcs.git_timeout", Kind.DEADLINE, "git took too long.", 5.0)
DEPENDENCIES_CONFLICT = ErrorSpec(
    "vcs.dependencies_conflict", Kind.CONFLICT, "The branches that this work depends on conflict with its own."
)
MERGE_IS_ANOTHER = ErrorSpec("vcs.merge_is_another", Kind.CONFLICT, "This merge id was used for another merge.")
