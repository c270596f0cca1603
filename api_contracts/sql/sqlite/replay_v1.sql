CREATE VIEW replay_v1 (id) AS
SELECT id FROM afterword_jobs
WHERE status IN ('cancelled', 'expired', 'failed') AND NOT coalesce((attempt = 0 AND error_code IN ('invalid_request', 'idempotency_conflict')), false);

CREATE TRIGGER afterword_replay_v1 INSTEAD OF INSERT ON replay_v1
BEGIN
    UPDATE afterword_jobs
    SET status = 'queued', finished_at = NULL, cancel_requested_at = NULL, waiting_for = NULL, worker_id = NULL,
        attempts_used = 0, generation = generation + 1, run_at = (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000),
        replay_time_s = (CASE WHEN coalesce(replay_time_s, (deadline - created_at) / 1000000.0) < 60 THEN 86400.0 ELSE coalesce(replay_time_s, (deadline - created_at) / 1000000.0) END),
        deadline = min((CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000) + CAST((CASE WHEN coalesce(replay_time_s, (deadline - created_at) / 1000000.0) < 60 THEN 86400.0 ELSE coalesce(replay_time_s, (deadline - created_at) / 1000000.0) END) * 1000000 AS INTEGER), 253402214400000000),
        error_code = NULL, error_message = NULL, error = NULL
    WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(NEW.id)), lower(NEW.id)) AND status IN ('cancelled', 'expired', 'failed') AND NOT coalesce((attempt = 0 AND error_code IN ('invalid_request', 'idempotency_conflict')), false);
    DELETE FROM afterword_cancellations WHERE id IN (lower(NEW.id), coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(NEW.id)), lower(NEW.id)));
    DELETE FROM afterword_finished
    WHERE job_id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(NEW.id)), lower(NEW.id)) AND EXISTS (SELECT 1 FROM afterword_jobs WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(NEW.id)), lower(NEW.id)) AND status = 'queued');
END;
