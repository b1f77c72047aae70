"""Version control: repositories, branches, commits and merges."""
