"""What sandboxes report: durable, ordered per sandbox, packed for the event streams."""
