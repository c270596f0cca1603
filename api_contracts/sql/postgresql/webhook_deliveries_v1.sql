CREATE VIEW webhook_deliveries_v1 (
    id, job_id, event_id, event_type, tenant, receiver, status, attempts, next_attempt_at, waiting_for,
    last_http_status, last_error_code, delivered_at, created_at, deadline, sequence, origin) AS
SELECT d.id, d.job_id, d.event_id, d.event_type, d.tenant, r.name, d.status, d.attempt,
    CASE WHEN d.status = 'queued' AND coalesce(d.waiting_for, '') <> 'order' THEN d.run_at END,
    CASE WHEN d.status = 'queued' THEN d.waiting_for END, d.last_http_status, d.last_error_code,
    CASE WHEN d.status = 'delivered' THEN d.finished_at END, d.created_at, d.deadline,
    d.sequence, d.origin
FROM afterword_deliveries d
JOIN afterword_receivers r ON r.id = d.receiver_id;
