"""Parts of events that several scenarios use."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from omoios.workflow.events.v1 import events_pb2 as workflow
from tests.convergence.harness import BEGIN


def sample(kind: type[Message]) -> Message:
    """A message with every field set."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            target = getattr(message, field.name)
            if field.message_type.GetOptions().map_entry:
                target["name"] = "value"
            elif field.message_type.full_name == "google.protobuf.Timestamp":
                target.FromDatetime(BEGIN)
            else:
                inner = sample(type(target.add()) if field.is_repeated else type(target))
                if field.is_repeated:
                    target[0].CopyFrom(inner)
                else:
                    target.CopyFrom(inner)
            continue
        value = _value(field)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


def _value(field: FieldDescriptor) -> Any:
    if field.name.endswith("_json"):
        return b"{}" if field.type == FieldDescriptor.TYPE_BYTES else "{}"
    return {
        FieldDescriptor.CPPTYPE_STRING: f"{field.name}-1",
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: 1.5,
    }.get(field.cpp_type, 1)


def task(task_id: str, status: str, *, priority: str = "MEDIUM") -> workflow.TaskReference:
    """Where a task stands."""
    return workflow.TaskReference(
        task_id=task_id,
        ticket_id="ticket-1",
        project_id="project-1",
        spec_id="spec-1",
        execution_id="execution-1",
        phase_id="PHASE_IMPLEMENTATION",
        task_type="implement_feature",
        priority=priority,
        status=status,
        title=task_id,
    )
