from tests.pool.conftest import toy

__all__ = ["toy"]
