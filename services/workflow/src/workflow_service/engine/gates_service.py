"""Gates: the evidence of a phase, collected and evaluated the same way for every route."""

from __future__ import annotations

from typing import Any

from servicekit.db import Tx
from servicekit.ids import new_id
from workflow_service.engine import rules, store
from workflow_service.engine.rules import Artifact, GateReport
from workflow_service.engine.tables import GateArtifact, Ticket


class GateKeeper:
    """Joins the transactions of its callers."""

    async def evaluate(self, tx: Tx, ticket: Ticket, phase_id: str, *, collect: bool = True) -> GateReport:
        """Evaluate a gate, after collecting the evidence that completed tasks of that phase left."""
        if collect:
            await self.collect(tx, ticket, phase_id)
        found = [
            Artifact(row.artifact_type, row.artifact_content or {}, row.artifact_path)
            for row in await store.artifacts(tx, ticket.id, phase_id)
        ]
        total, still_open = await store.task_counts(tx, ticket.id, phase_id)
        return rules.evaluate_gate(phase_id, found, total, still_open)

    async def collect(self, tx: Tx, ticket: Ticket, phase_id: str) -> int:
        """Take the artifacts that completed tasks of a phase reported into its evidence; how many are new."""
        rows = []
        for result in await store.task_results(tx, ticket.id, phase_id):
            reported = result.get("artifacts")
            for item in reported if isinstance(reported, list) else ():
                if not isinstance(item, dict) or not isinstance(item.get("type"), str):
                    continue
                content, path = item.get("content"), item.get("path")
                rows.append(
                    {
                        "ticket_id": ticket.id,
                        "phase_id": phase_id,
                        "artifact_type": item["type"][:100],
                        "artifact_path": path if isinstance(path, str) else None,
                        "artifact_content": content if isinstance(content, dict) else None,
                        "collected_by": str(item.get("collected_by") or "system")[:255],
                    }
                )
        return await store.add_artifacts(tx, rows)

    async def validate(self, tx: Tx, ticket: Ticket, phase_id: str, by: str) -> GateReport:
        """Evaluate a gate and keep what was found."""
        report = await self.evaluate(tx, ticket, phase_id)
        await store.add_gate_result(
            tx,
            {
                "id": new_id(),
                "ticket_id": ticket.id,
                "phase_id": phase_id,
                "gate_status": "passed" if report.met else "failed",
                "blocking_reasons": list(report.reasons),
                "validated_by": by,
            },
        )
        return report

    async def keep(
        self,
        tx: Tx,
        ticket: Ticket,
        phase_id: str,
        kind: str,
        path: str | None,
        content: dict[str, Any] | None,
        by: str,
    ) -> GateArtifact:
        """Keep one piece of evidence; one of the same type and path in that phase is replaced."""
        row = {
            "id": new_id(),
            "ticket_id": ticket.id,
            "phase_id": phase_id,
            "artifact_type": kind,
            "artifact_path": path,
            "artifact_content": content,
            "collected_by": by,
        }
        return await store.replace_artifact(tx, row)
