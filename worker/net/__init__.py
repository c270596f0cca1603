"""The wire: calls to endpoints and what can happen to them."""
