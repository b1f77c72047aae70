"""Decisions of the runner: back-off, verdicts on answers, git's neutral configuration, commit messages, batches."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

BATCH_LINES = 100
BATCH_BYTES = 1_000_000
BATCH_WAIT_S = 0.2
BUFFER_EVENTS = 5_000
BUFFER_BYTES = 16 * 1024**2
BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 5.0

_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}")
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# What is only untidy in a history that git takes everywhere else: dates, names and modes that other tools wrote. It
# cannot be mended without rewriting history. What could reach outside of a work tree stays refused.
OLD_HISTORY = (
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badFilemode",
    "badName",
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "multipleAuthors",
    "nulInCommit",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
)

# Nothing a repository or a machine's configuration says may start a program or leave HTTP.
GIT_NEUTRAL: tuple[tuple[str, str], ...] = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.sshCommand", "false"),
    ("core.askPass", ""),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("credential.helper", ""),
    ("protocol.allow", "never"),
    ("protocol.http.allow", "always"),
    ("protocol.https.allow", "always"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("transfer.fsckObjects", "true"),
    *((f"fetch.fsck.{message}", "ignore") for message in OLD_HISTORY),
    ("http.followRedirects", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("commit.gpgSign", "false"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
)

SANDBOX_CONFIG = "[user]\n\tname = OmoiOS agent\n\temail = agent@omoios.invalid\n"
"""A command that commits needs a name; here a repository's own configuration and the command's come before it."""

OWN_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"
HEAD_LINE_BYTES = 80

# `sh -c COMMIT_SCRIPT commit START MESSAGE`, with OWN and WORK in the environment: prints the new head, then, where it
# differs from START, the pack of what is new. Of the sandbox's repository it asks only where HEAD, index, objects and
# excludes are, which starts nothing; all the rest has OWN's configuration. Plumbing instead of `add` and `commit`,
# because those start git in nested repositories, with the configuration of these. At the end index and files agree:
# git skips names that it does not take without an error.
COMMIT_SCRIPT = r"""
set -eu
start=$1 message=$2
theirs() { git --git-dir="$WORK/.git" rev-parse "$@"; }
head=$(theirs --verify HEAD) || { echo "the sandbox's repository has no commit at HEAD" >&2; exit 1; }
merging=$(theirs --verify --quiet MERGE_HEAD) || merging=
GIT_INDEX_FILE=$(theirs --path-format=absolute --git-path index)
GIT_OBJECT_DIRECTORY=$(theirs --path-format=absolute --git-path objects)
exclude=$(theirs --path-format=absolute --git-path info/exclude)
GIT_DIR=$OWN GIT_WORK_TREE=$WORK
export GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY
git rev-parse --verify --quiet "$head^{commit}" >/dev/null || { echo "HEAD ($head) is no commit" >&2; exit 1; }

changed() { git diff-files --name-only --ignore-submodules=dirty "$@"; }
new() { git -c core.excludesFile="$exclude" ls-files --others --exclude-standard "$@"; }
changed -z --diff-filter=D | git update-index -z --force-remove --stdin
# A nested repository is listed with a slash behind its name, and taken without.
plain() { LC_ALL=C tr '\0\n' '\n\0' | LC_ALL=C sed 's|/$||' | LC_ALL=C tr '\0\n' '\n\0'; }
{ changed -z --diff-filter=d && new -z; } | plain | git update-index -z --add --remove --replace --stdin
left=$(changed)
left=$left$(new)
[ -z "$left" ] || { printf 'git does not take these names:\n%s\n' "$left" >&2; exit 1; }

tree=$(git write-tree)
if [ "$tree" != "$(git rev-parse --verify "$head^{tree}")" ]; then
    head=$(git commit-tree -p "$head" ${merging:+-p "$merging"} -m "$message" "$tree")
fi
printf '%s\n' "$head"
[ "$head" = "$start" ] ||
    printf '%s\n^%s\n' "$head" "$start" | git pack-objects --quiet --revs --thin --delta-base-offset --stdout
"""


class Verdict(Enum):
    """What an answer of the API means for the one who asked."""

    DONE = "done"
    RETRY = "retry"
    OVER = "over"
    REFUSED = "refused"


def verdict(status: int) -> Verdict:
    """2xx: done. 401, 403, 404, 409 and 410 on a sandbox: the attempt is over. 408, 425, 429, 5xx: ask again."""
    if 200 <= status < 300:
        return Verdict.DONE
    if status in {401, 403, 404, 409, 410}:
        return Verdict.OVER
    if status in {408, 425, 429} or status >= 500:
        return Verdict.RETRY
    return Verdict.REFUSED


class Standing(Enum):
    """What the API says about the agent of a runner."""

    ACTIVE = "active"
    WAITING = "waiting"
    GONE = "gone"


def standing(status: int, agent_status: str) -> Standing:
    """What an answer to a claim or a heartbeat means for the agent; other failures than these say nothing about it.

    Closed for new tasks, degraded or quarantined, it waits until somebody opens it again. Failed or terminated it is
    never taken back, and without its token it cannot ask.
    """
    if status in {401, 403, 404, 410}:
        return Standing.GONE
    if status == 409:
        return Standing.GONE if agent_status in {"FAILED", "TERMINATED"} else Standing.WAITING
    return Standing.ACTIVE


def backoff_s(attempt: int) -> float:
    """Seconds before the given retry, from 0: 0.25, 0.5, 1, … at most 5."""
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * float(1 << min(attempt, 10)))


def git_environment(home: str, pairs: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """git's environment: neutral configuration, then `pairs`; no machine's or user's configuration is read."""
    settings = [*GIT_NEUTRAL, *pairs]
    found = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (name, value) in enumerate(settings):
        found[f"GIT_CONFIG_KEY_{number}"] = name
        found[f"GIT_CONFIG_VALUE_{number}"] = value
    return found


def commit_environment(home: str, own: str, work: str, author: str) -> dict[str, str]:
    """The environment of `COMMIT_SCRIPT`: no transport at all, for a repository may say that objects lie elsewhere."""
    pairs = [
        ("user.name", author),
        ("user.email", "agent@omoios.invalid"),
        # These would be believed without a look at the files and the commits themselves.
        ("core.untrackedCache", "false"),
        ("core.commitGraph", "false"),
    ]
    return git_environment(home, pairs) | {"GIT_ALLOW_PROTOCOL": "none", "OWN": own, "WORK": work}


def is_commit_id(text: str) -> bool:
    """Whether this is the full id of a commit."""
    return _SHA.fullmatch(text) is not None


def authorization(clone_url: str, token: str) -> tuple[str, str]:
    """The configuration that sends the token to this URL only, and only in a header."""
    credential = base64.b64encode(f"sandbox:{token}".encode()).decode()
    return f"http.{clone_url}.extraHeader", f"Authorization: Basic {credential}"


def check_repository(clone_url: str, branch: str, base_sha: str) -> str | None:
    """Why this access cannot be used; None when it can."""
    parts = urlsplit(clone_url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or "@" in parts.netloc:
        return "The clone URL is not plain HTTP."
    if not _BRANCH.fullmatch(branch) or ".." in branch or branch.endswith(("/", ".lock", ".")):
        return "The branch name is not one git takes."
    if base_sha and not _SHA.fullmatch(base_sha):
        return "The base is not a commit id."
    return None


def commit_message(task: Mapping[str, Any]) -> str:
    """The message of the attempt's commit: the task's title, then the ids that link it."""
    title = " ".join(str(task.get("title") or "Work of an agent").split())[:100]
    lines = [title, "", f"Task: {task.get('id')}"]
    if task.get("ticket_id"):
        lines.append(f"Ticket: {task['ticket_id']}")
    return "\n".join(lines) + "\n"


def ticket_title(context: object) -> str | None:
    """The title of the ticket that a claim tells of, None where it tells of none."""
    ticket = context.get("ticket") if isinstance(context, Mapping) else None
    title = ticket.get("title") if isinstance(ticket, Mapping) else None
    return title if isinstance(title, str) else None


def sandbox_uid(base: int, process_id: int, slot: int) -> int:
    """A user id for one slot of one runner, so that sandboxes side by side cannot touch each other."""
    return base + (process_id * 31 + slot) % 5_000


@dataclass(frozen=True, slots=True)
class StreamFull:
    """How much may wait to be sent before a command has to wait."""

    events: int = BUFFER_EVENTS
    size: int = BUFFER_BYTES
