"""What is not as it should be: found in events, told as anomalies."""
