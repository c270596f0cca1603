"""Afterword's worker: takes jobs from Redis and SQL, calls the endpoint, stores what came."""
