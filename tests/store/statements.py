"""SQL statements that several store tests run."""

WAITS_FOR_A_LOCK = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

FILL = """
INSERT INTO afterword_jobs (id, tenant, status, endpoint, priority, run_at, deadline, created_at, max_attempts,
                            timeout_s, streamed, fingerprint)
WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000)
SELECT {id}, 'default', 'queued', 'default', 5, {now} + {second} * (n - 10), {now} + {second} * 86400, {now}, 5, 60,
       false, 'x' FROM n
"""
