"""Find roles that may create objects in our search path, and could therefore act as the owner of our tables.

PostgreSQL resolves the operator of `status = 'queued'` along the search path, and prefers an operator that matches the
types better than its built-in operator (manual, 10.2 Operators). A role with CREATE on our schema could add such an
operator. The operator would run with the rights of the worker's role, or, in the trigger functions of cancel_v1 and
replay_v1, with the owner's rights. Before PostgreSQL 15 every role may create objects in `public`.
"""

from sqlalchemy import Connection, text

from worker.store.version import VERSION_TABLE

MOST_NAMES = 5
# Superusers and members of the roles that own the database, our schema or our tables have these rights anyway.
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
    """Return a sentence with the roles that could act as our tables' owner, and the remedy; None if there are none."""
    if connection.dialect.name != "postgresql":
        return None
    found = connection.execute(_STRANGERS, {"schema": schema, "made": VERSION_TABLE}).all()
    if not found:
        return None
    schema_name = found[0][0]
    roles = [role for name, role in found if name == schema_name]
    more = f" and {len(roles) - MOST_NAMES} more" if len(roles) > MOST_NAMES else ""
    return (
        f"the roles {', '.join(roles[:MOST_NAMES])}{more} may create objects in the schema {schema_name}, and so act "
        f"as the owner of our tables; run: REVOKE CREATE ON SCHEMA {schema_name} FROM PUBLIC, {', '.join(roles)}"
    )
