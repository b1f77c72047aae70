"""The composition root: everything this service is made of."""

from __future__ import annotations

from omoios.workflow.v1.workflow_pb2_grpc import add_WorkflowServiceServicer_to_server
from servicekit.db import Database
from servicekit.events import Bus, ReplicaSource, Resources
from servicekit.host import Service, run
from servicekit.rpc import RpcChannels, RpcServicer
from workflow_service import errors, replica
from workflow_service.access import ACCESS
from workflow_service.board import routes as board_routes
from workflow_service.board.service import BoardService
from workflow_service.clients import BillingClient, IdentityClient, VcsClient
from workflow_service.coordination import consumers as coordination_consumers
from workflow_service.coordination import jobs as coordination_jobs
from workflow_service.coordination.merges_service import MergeQueue
from workflow_service.coordination.service import CoordinationService
from workflow_service.engine import jobs as engine_jobs
from workflow_service.engine.rules import PHASES
from workflow_service.engine.service import EngineService
from workflow_service.graph import routes as graph_routes
from workflow_service.graph.service import GraphService
from workflow_service.phases import routes as phases_routes
from workflow_service.phases.service import PhaseService
from workflow_service.projects import consumers as projects_consumers
from workflow_service.projects import jobs as projects_jobs
from workflow_service.projects import routes as projects_routes
from workflow_service.projects.service import ProjectService
from workflow_service.queue import consumers as queue_consumers
from workflow_service.queue import jobs as queue_jobs
from workflow_service.queue.claims_service import ClaimService
from workflow_service.queue.limits_service import LimitService
from workflow_service.queue.merges_service import TaskMerges
from workflow_service.queue.service import QueueService
from workflow_service.results import routes as results_routes
from workflow_service.results.service import ResultService
from workflow_service.rpc import WorkflowServicer
from workflow_service.settings import Settings
from workflow_service.specs import parts_routes as specs_parts_routes
from workflow_service.specs import routes as specs_routes
from workflow_service.specs.execution_service import SpecExecutionService
from workflow_service.specs.lookup_service import LookupService
from workflow_service.specs.parts_service import SpecPartsService
from workflow_service.specs.service import SpecService
from workflow_service.specs.tasks_service import SpecTaskMaker
from workflow_service.tasks import routes as tasks_routes
from workflow_service.tasks.service import TaskService
from workflow_service.tickets import jobs as tickets_jobs
from workflow_service.tickets import routes as tickets_routes
from workflow_service.tickets.service import TicketService


def build(settings: Settings) -> Service:
    """The service with all its parts, not started.

    Rooms know only those below them; what happens below is told upwards by `follow`, inside the same transaction.
    """
    db = Database(settings)
    channels = RpcChannels(settings)
    vcs, billing = VcsClient(channels), BillingClient(channels)
    queue = QueueService()
    limits = LimitService(db, queue, billing, settings)
    claims = ClaimService(db, queue, limits, settings)
    projects = ProjectService(db, vcs, followers=[queue])
    engine = EngineService(db, queue)
    task_merges = TaskMerges(queue)
    merges = MergeQueue(db, queue, task_merges, vcs)
    coordination = CoordinationService(db, queue, engine, task_merges, merges)
    specs = SpecService(db, projects, engine, queue, coordination)
    maker = SpecTaskMaker(queue, engine, coordination)
    execution = SpecExecutionService(db, specs, projects, coordination, billing, maker)
    queue.follow(coordination)
    claims.described_by(execution.contexts)
    coordination.follow(execution)
    tickets = TicketService(db, projects, engine, settings)
    tasks = TaskService(db, queue, claims, limits, engine, settings)
    board = BoardService(db, projects, engine)
    graph = GraphService(db, projects, engine, queue)
    phases = PhaseService(db, engine)
    parts = SpecPartsService(db, specs, engine)
    results = ResultService(db, queue, engine)
    lookup = LookupService(db, queue)
    return Service(
        name="workflow",
        settings=settings,
        access=ACCESS,
        db=db,
        channels=channels,
        bus=Bus(settings),
        resources=Resources(db, channels),
        routers=[
            projects_routes.router(projects, list(PHASES)),
            board_routes.stats_router(board),
            specs_routes.router(specs, execution),
            specs_parts_routes.router(parts),
            results_routes.router(results),
            tickets_routes.router(tickets),
            phases_routes.router(phases),
            tasks_routes.router(tasks),
            board_routes.router(board),
            graph_routes.router(graph),
        ],
        servicers=[
            RpcServicer(
                add_WorkflowServiceServicer_to_server,
                WorkflowServicer(claims, lookup),
                "omoios.workflow.v1.WorkflowService",
            )
        ],
        consumers=[
            replica.consumers(queue.room_changed),
            projects_consumers.consumers(projects),
            queue_consumers.consumers(claims, limits),
            coordination_consumers.consumers(merges, coordination),
        ],
        jobs=[
            *projects_jobs.jobs(projects),
            *queue_jobs.jobs(claims),
            *engine_jobs.jobs(engine),
            *tickets_jobs.jobs(tickets),
            *coordination_jobs.jobs(coordination, merges),
        ],
        replicas=[ReplicaSource("organizations", replica.Rebuild(db, IdentityClient(channels)).organizations)],
        errors=errors,
    )


if __name__ == "__main__":
    run(build(Settings()))
