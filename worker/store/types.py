"""Column types that mean the same on PostgreSQL and SQLite."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Numeric, String, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.types import TypeDecorator, TypeEngine

# A UUID as lower-case text on both sides; PostgreSQL stores 16 bytes.
Id = UUID(as_uuid=False).with_variant(String(36), "sqlite")

# JSON as text, cleaned before the write (core.storable_text). The engine passes the text through, without parsing it.
JsonText = Text().with_variant(JSONB(none_as_null=True), "postgresql")


def microseconds(instant: datetime) -> int:
    """Return whole microseconds since 1970, the form of an instant in SQLite."""
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime: timestamptz, or integer microseconds since 1970 on SQLite.

    SQLite has no time type, and text would not compare with the numbers of `store.clock`.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(BigInteger() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value  # type: ignore[no-any-return]  # psycopg made the datetime
        seconds, microseconds = divmod(value, 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


class Money(TypeDecorator[Decimal]):
    """A decimal of any precision: numeric, or text on SQLite, because SQLite's numbers are doubles."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Numeric())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return str(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return Decimal(value) if isinstance(value, str) else value
