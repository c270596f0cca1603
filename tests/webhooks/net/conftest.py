from tests.net.conftest import authority, ca_file, kind, server_tls

__all__ = ["authority", "ca_file", "kind", "server_tls"]
