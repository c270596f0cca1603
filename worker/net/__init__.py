"""HTTP for both wings: transport, protocol, TLS, exceptions."""
