CREATE VIEW submit_v1 (id, job, tenant, batch, custom_id, idempotency_key) AS SELECT id, job, tenant, batch, custom_id, idempotency_key FROM afterword_inbox;
