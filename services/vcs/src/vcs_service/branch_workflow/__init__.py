"""`/branch-workflow`: the life of a ticket's branch."""
