CREATE VIEW cancel_v1 (id) AS SELECT id FROM afterword_cancellations;

CREATE TRIGGER afterword_cancel_v1 INSTEAD OF INSERT ON cancel_v1
BEGIN
    UPDATE afterword_jobs SET cancel_requested_at = (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)
    WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(CASE WHEN length(NEW.id) = 32 THEN substr(NEW.id, 1, 8) || '-' || substr(NEW.id, 9, 4) || '-' || substr(NEW.id, 13, 4) || '-' || substr(NEW.id, 17, 4) || '-' || substr(NEW.id, 21) ELSE NEW.id END)), lower(CASE WHEN length(NEW.id) = 32 THEN substr(NEW.id, 1, 8) || '-' || substr(NEW.id, 9, 4) || '-' || substr(NEW.id, 13, 4) || '-' || substr(NEW.id, 17, 4) || '-' || substr(NEW.id, 21) ELSE NEW.id END)) AND status IN ('queued', 'in_progress') AND cancel_requested_at IS NULL;
    UPDATE afterword_jobs
    SET status = 'cancelled', finished_at = (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000), waiting_for = NULL,
        error_code = 'cancelled', error_message = 'The job was cancelled.', error = '{"code":"cancelled","message":"The job was cancelled."}'
    WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(CASE WHEN length(NEW.id) = 32 THEN substr(NEW.id, 1, 8) || '-' || substr(NEW.id, 9, 4) || '-' || substr(NEW.id, 13, 4) || '-' || substr(NEW.id, 17, 4) || '-' || substr(NEW.id, 21) ELSE NEW.id END)), lower(CASE WHEN length(NEW.id) = 32 THEN substr(NEW.id, 1, 8) || '-' || substr(NEW.id, 9, 4) || '-' || substr(NEW.id, 13, 4) || '-' || substr(NEW.id, 17, 4) || '-' || substr(NEW.id, 21) ELSE NEW.id END)) AND status = 'queued';
    INSERT OR IGNORE INTO afterword_cancellations (id, created_at)
    VALUES (coalesce((SELECT job_id FROM afterword_aliases WHERE id = lower(CASE WHEN length(NEW.id) = 32 THEN substr(NEW.id, 1, 8) || '-' || substr(NEW.id, 9, 4) || '-' || substr(NEW.id, 13, 4) || '-' || substr(NEW.id, 17, 4) || '-' || substr(NEW.id, 21) ELSE NEW.id END)), lower(CASE WHEN length(NEW.id) = 32 THEN substr(NEW.id, 1, 8) || '-' || substr(NEW.id, 9, 4) || '-' || substr(NEW.id, 13, 4) || '-' || substr(NEW.id, 17, 4) || '-' || substr(NEW.id, 21) ELSE NEW.id END)), (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000));
END;
