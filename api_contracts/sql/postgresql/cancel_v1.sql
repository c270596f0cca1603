CREATE VIEW cancel_v1 (id) AS SELECT id FROM afterword_cancellations;

CREATE FUNCTION afterword_cancel_v1() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE afterword_jobs SET cancel_requested_at = clock_timestamp()
    WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = NEW.id), NEW.id) AND status IN ('queued', 'in_progress') AND cancel_requested_at IS NULL;
    UPDATE afterword_jobs
    SET status = 'cancelled', finished_at = clock_timestamp(), waiting_for = NULL,
        error_code = 'cancelled', error_message = 'The job was cancelled.', error = '{"code":"cancelled","message":"The job was cancelled."}'::jsonb
    WHERE id = coalesce((SELECT job_id FROM afterword_aliases WHERE id = NEW.id), NEW.id) AND status = 'queued';
    INSERT INTO afterword_cancellations (id, created_at)
    VALUES (coalesce((SELECT job_id FROM afterword_aliases WHERE id = NEW.id), NEW.id), clock_timestamp()) ON CONFLICT DO NOTHING;
    RETURN NEW;
END $$;

CREATE TRIGGER afterword_cancel_v1 INSTEAD OF INSERT ON cancel_v1
FOR EACH ROW EXECUTE FUNCTION afterword_cancel_v1();

REVOKE EXECUTE ON FUNCTION afterword_cancel_v1() FROM PUBLIC;
