"""The workflow service: projects, specs, tickets, tasks and the one transition engine."""
