-- Makes the roles of docker-compose.yml. Run it as a superuser with psql (15 or newer); you may run it again:
--   OWNER_PASSWORD=… WORKER_PASSWORD=… psql --file=ops/roles.sql DATABASE
-- afterword_owner owns and migrates our tables. afterword_worker reads and writes rows and cannot change a table.
\set ON_ERROR_STOP on
\getenv owner_password OWNER_PASSWORD
\getenv worker_password WORKER_PASSWORD

SELECT format('CREATE ROLE %I', wanted.name)
FROM (VALUES ('afterword_owner'), ('afterword_worker')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name)
\gexec

ALTER ROLE afterword_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'owner_password';
ALTER ROLE afterword_worker LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'worker_password';

-- A role that may create objects in this schema could add an operator that our statements find, and act as the owner.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO afterword_owner;
GRANT USAGE ON SCHEMA public TO afterword_worker;

-- An earlier release made these objects as the superuser. Sequences follow their tables.
SELECT format('ALTER %s public.%I OWNER TO afterword_owner', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, relname)
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relowner <> 'afterword_owner'::regrole
  AND (relkind = 'r' AND relname LIKE 'afterword\_%' OR relkind = 'v' AND relname LIKE '%\_v1')
\gexec
SELECT format('ALTER FUNCTION %s OWNER TO afterword_owner', oid::regprocedure)
FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND proowner <> 'afterword_owner'::regrole AND proname LIKE 'afterword\_%'
\gexec

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO afterword_worker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO afterword_worker;
-- The same rights on objects that later migrations make.
ALTER DEFAULT PRIVILEGES FOR ROLE afterword_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO afterword_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE afterword_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO afterword_worker;
