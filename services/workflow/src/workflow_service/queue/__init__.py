"""The queue: tasks, their dependencies, claims, leases, attempts."""
