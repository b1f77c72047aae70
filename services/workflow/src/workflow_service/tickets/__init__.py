"""Tickets at the HTTP edge: lists, approval, duplicates, context."""
