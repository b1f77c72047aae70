"""`/costs`: usage, its price, and summaries."""
