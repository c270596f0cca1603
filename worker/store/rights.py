"""Who may create objects where our statements look for operators, and could so act as the owner of our tables.

PostgreSQL resolves `status = 'queued'` along the search path, and an operator that fits the types better than its own
wins (manual, 10.2 Operators). A role that may create one in our schema has it called by whoever runs our statements:
the worker's role, or through the doors' functions the owner. Until PostgreSQL 15 everybody may create in `public`.
"""

from sqlalchemy import Connection, text

from worker.store.version import VERSION_TABLE

NAMED = 5
# Superusers, and members of the roles that own the database, our schema or our tables, can do as much anyway.
_STRANGERS = text("""
SELECT quote_ident(place.nspname), quote_ident(role.rolname)
FROM pg_namespace AS place
CROSS JOIN pg_roles AS role
JOIN pg_database AS base ON base.datname = current_database()
JOIN pg_namespace AS ours ON ours.nspname = coalesce(:schema, current_schema())
LEFT JOIN pg_class AS made ON made.relnamespace = ours.oid AND made.relname = :made
WHERE (place.oid = ours.oid OR place.nspname = ANY (current_schemas(false)))
  AND role.rolcanlogin AND NOT role.rolsuper
  AND has_database_privilege(role.oid, base.oid, 'CONNECT')
  AND has_schema_privilege(role.oid, place.oid, 'CREATE')
  AND NOT pg_has_role(role.oid, base.datdba, 'USAGE')
  AND NOT (made.relowner IS NOT NULL AND pg_has_role(role.oid, made.relowner, 'USAGE'))
  AND NOT (place.oid = ours.oid AND pg_has_role(role.oid, place.nspowner, 'USAGE'))
  AND NOT (place.oid <> ours.oid AND role.rolname = current_user)
ORDER BY 1, 2""")


def open_schema(connection: Connection, *, schema: str | None = None) -> str | None:
    """Return a sentence about roles that could act as the owner of our tables, with the remedy; None without any."""
    if connection.dialect.name != "postgresql":
        return None
    found = connection.execute(_STRANGERS, {"schema": schema, "made": VERSION_TABLE}).all()
    if not found:
        return None
    place = found[0][0]
    roles = [role for where, role in found if where == place]
    more = f" and {len(roles) - NAMED} more" if len(roles) > NAMED else ""
    return (
        f"the roles {', '.join(roles[:NAMED])}{more} may create objects in the schema {place}, and so act as the owner "
        f"of our tables; run: REVOKE CREATE ON SCHEMA {place} FROM PUBLIC, {', '.join(roles)}"
    )
