"""Dashboard, metrics and anomalies for people."""
