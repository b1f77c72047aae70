"""Alerts: anomalies and blocked tickets that a rule wants somebody to know of."""
