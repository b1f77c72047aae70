"""Phase registry and the phase operations of a ticket."""
