CREATE VIEW replay_v1 (id) AS
SELECT id FROM afterword_jobs
WHERE status IN ('cancelled', 'expired', 'failed') AND NOT coalesce((attempt = 0 AND error_code IN ('invalid_request', 'idempotency_conflict')), false);

CREATE FUNCTION afterword_replay_v1() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM 1 FROM afterword_jobs WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = NEW.id), NEW.id) FOR UPDATE;
    UPDATE afterword_jobs
    SET status = 'queued', finished_at = NULL, cancel_requested_at = NULL, waiting_for = NULL, worker_id = NULL,
        attempts_used = 0, generation = generation + 1, run_at = clock_timestamp(),
        replay_time_s = (CASE WHEN coalesce(replay_time_s, EXTRACT(EPOCH FROM deadline - created_at)::float8) < 60 THEN 86400.0 ELSE coalesce(replay_time_s, EXTRACT(EPOCH FROM deadline - created_at)::float8) END),
        deadline = least(clock_timestamp() + make_interval(secs => (CASE WHEN coalesce(replay_time_s, EXTRACT(EPOCH FROM deadline - created_at)::float8) < 60 THEN 86400.0 ELSE coalesce(replay_time_s, EXTRACT(EPOCH FROM deadline - created_at)::float8) END)), timestamptz '9999-12-31 00:00:00+00'),
        error_code = NULL, error_message = NULL, error = NULL
    WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = NEW.id), NEW.id) AND status IN ('cancelled', 'expired', 'failed') AND NOT coalesce((attempt = 0 AND error_code IN ('invalid_request', 'idempotency_conflict')), false);
    DELETE FROM afterword_cancellations WHERE id IN (NEW.id, coalesce((SELECT job_id FROM afterword_aliases WHERE id = NEW.id), NEW.id));
    DELETE FROM afterword_finished
    WHERE job_id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = NEW.id), NEW.id) AND EXISTS (SELECT 1 FROM afterword_jobs WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = NEW.id), NEW.id) AND status = 'queued');
    RETURN NEW;
END $$;

CREATE TRIGGER afterword_replay_v1 INSTEAD OF INSERT ON replay_v1
FOR EACH ROW EXECUTE FUNCTION afterword_replay_v1();

REVOKE EXECUTE ON FUNCTION afterword_replay_v1() FROM PUBLIC;
