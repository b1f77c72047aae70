"""The monitoring service: the live event stream, health, anomalies and alerts."""
