"""Which operations of the public contract are served, and which are still to come."""
