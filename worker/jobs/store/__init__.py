"""SQL of the jobs wing."""
