"""SQL of the webhooks wing."""
