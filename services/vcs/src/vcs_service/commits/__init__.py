"""`/commits`: commits linked to tickets."""
