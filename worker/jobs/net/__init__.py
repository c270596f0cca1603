"""The request to an endpoint and its answer."""
