"""The transition engine: tickets, their phases, statuses and gates, and every move between them."""
