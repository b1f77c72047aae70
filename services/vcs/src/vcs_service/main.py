"""The composition root: everything this service is made of."""

from __future__ import annotations

from omoios.vcs.v1.vcs_pb2_grpc import add_VcsServiceServicer_to_server
from servicekit.db import Database
from servicekit.events import Bus, ReplicaSource
from servicekit.host import Job, Service, run
from servicekit.rpc import RpcChannels, RpcServicer
from vcs_service import errors, replica
from vcs_service.access import ACCESS
from vcs_service.branch_workflow import routes as branch_workflow_routes
from vcs_service.branch_workflow.service import BranchService
from vcs_service.branch_workflow.ticket_service import TicketBranchService
from vcs_service.clients import WorkflowClient
from vcs_service.commits import routes as commits_routes
from vcs_service.commits.adapters import CommitReader
from vcs_service.commits.service import CommitService
from vcs_service.merging.adapters import Merger
from vcs_service.merging.service import MergingService
from vcs_service.mirror import routes as mirror_routes
from vcs_service.mirror.adapters import Git
from vcs_service.mirror.repository_adapters import Mirrors
from vcs_service.mirror.service import MirrorService
from vcs_service.rpc import VcsServicer
from vcs_service.settings import Settings


def build(settings: Settings) -> Service:
    """The service with all its parts, not started."""
    db = Database(settings)
    channels = RpcChannels(settings)
    git = Git(settings.mirrors, parallel=settings.git_processes)
    public_only = settings.is_production if settings.public_hosts_only is None else settings.public_hosts_only
    mirrors = Mirrors(git, public_only=public_only)
    mirror = MirrorService(db, mirrors, settings)
    merging = MergingService(db, mirror, Merger(mirrors))
    tickets = replica.Tickets(db, WorkflowClient(channels))
    commits = CommitService(db, CommitReader(git), tickets)
    branches = BranchService(db, mirror, merging, commits)
    merging.finish_by(branches.head_to_merge)
    ticket_branches = TicketBranchService(db, mirror, merging, commits, branches, tickets)
    return Service(
        name="vcs",
        settings=settings,
        access=ACCESS,
        db=db,
        channels=channels,
        bus=Bus(settings),
        routers=[commits_routes.router(commits), branch_workflow_routes.router(ticket_branches)],
        mounts=mirror_routes.routes(mirror, max_push_bytes=settings.push_max_bytes),
        servicers=[
            RpcServicer(
                add_VcsServiceServicer_to_server,
                VcsServicer(mirror, branches, merging, commits, settings.public_url),
                "omoios.vcs.v1.VcsService",
            )
        ],
        consumers=[replica.consumers()],
        replicas=[ReplicaSource("tickets", tickets.rebuild)],
        jobs=[
            Job("mirror-repositories", every_s=5.0, run=mirror.mirror_due, timeout_s=3600.0, wake=mirror.bound),
            Job("run-merges", every_s=5.0, run=merging.run_open, timeout_s=3600.0, wake=merging.accepted),
        ],
        errors=errors,
    )


if __name__ == "__main__":
    run(build(Settings()))
