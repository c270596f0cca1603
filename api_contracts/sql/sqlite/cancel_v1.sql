CREATE VIEW cancel_v1 (id) AS SELECT id FROM afterword_cancellations;

CREATE TRIGGER afterword_cancel_v1 INSTEAD OF INSERT ON cancel_v1
BEGIN
    UPDATE afterword_jobs SET cancel_requested_at = (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)
    WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(NEW.id)), lower(NEW.id)) AND status IN ('queued', 'in_progress') AND cancel_requested_at IS NULL;
    UPDATE afterword_jobs
    SET status = 'cancelled', finished_at = (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000), waiting_for = NULL,
        error_code = 'cancelled', error_message = 'The job was cancelled.', error = '{"code":"cancelled","message":"The job was cancelled."}'
    WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(NEW.id)), lower(NEW.id)) AND status = 'queued';
    INSERT OR IGNORE INTO afterword_cancellations (id, created_at)
    VALUES (coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(NEW.id)), lower(NEW.id)), (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000));
END;
