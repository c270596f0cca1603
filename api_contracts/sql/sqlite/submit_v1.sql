CREATE VIEW submit_v1 (id, job, tenant, batch, custom_id, idempotency_key) AS SELECT id, job, tenant, batch, custom_id, idempotency_key FROM afterword_inbox;

CREATE TRIGGER afterword_submit_v1 INSTEAD OF INSERT ON submit_v1
BEGIN
    INSERT INTO afterword_inbox (id, job, tenant, batch, custom_id, idempotency_key)
    VALUES (coalesce(lower(CASE WHEN length(NEW.id) = 32 THEN substr(NEW.id, 1, 8) || '-' || substr(NEW.id, 9, 4) || '-' || substr(NEW.id, 13, 4) || '-' || substr(NEW.id, 17, 4) || '-' || substr(NEW.id, 21) ELSE NEW.id END), (lower(substr(hex(randomblob(4)), 1, 8) || '-' || substr(hex(randomblob(2)), 1, 4) || '-4' || substr(hex(randomblob(2)), 2, 3) || '-' || substr('89ab', abs(random() % 4) + 1, 1) || substr(hex(randomblob(2)), 2, 3) || '-' || hex(randomblob(6))))), NEW.job, NEW.tenant, NEW.batch, NEW.custom_id, NEW.idempotency_key);
END;
