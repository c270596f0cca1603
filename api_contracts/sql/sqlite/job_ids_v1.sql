CREATE VIEW job_ids_v1 (id, job_id, outcome) AS
SELECT id, id, CASE WHEN error_code = 'idempotency_conflict' THEN 'conflict'
                    WHEN error_code = 'invalid_request' AND attempt = 0 THEN 'refused'
                    ELSE 'accepted' END
FROM afterword_jobs
UNION ALL
SELECT id, job_id, outcome FROM afterword_aliases;
