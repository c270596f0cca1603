-- The roles of docker-compose.yml, made by a superuser with psql (15 or newer); safe to repeat:
--   OWNER_PASSWORD=… WORKER_PASSWORD=… psql --file=ops/roles.sql DATABASE
-- afterword_owner owns our tables and migrates them; afterword_worker reads and writes rows, and changes no table.
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

-- Whoever may create objects where our statements look for operators could act as the owner.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO afterword_owner;
GRANT USAGE ON SCHEMA public TO afterword_worker;

-- What an earlier release made as the superuser. Sequences follow their tables.
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
-- And on what later migrations make.
ALTER DEFAULT PRIVILEGES FOR ROLE afterword_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO afterword_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE afterword_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO afterword_worker;
