"""Tasks at the HTTP edge."""
