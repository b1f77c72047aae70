"""`/billing`: accounts as their owners see them."""
