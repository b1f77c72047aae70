"""Results that agents report."""
