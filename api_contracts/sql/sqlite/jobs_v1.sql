CREATE VIEW jobs_v1 (
    id, tenant, status, batch, custom_id, idempotency_key, endpoint, model, priority, attempts, max_attempts,
    created_at, not_before, deadline, started_at, finished_at, waiting_for, waiting_until, finish_reason, content,
    reasoning_content, refusal, tool_calls, response, response_id, response_model, system_fingerprint, error_code,
    error_message, error, prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens, prompt_text_tokens, prompt_audio_tokens, prompt_image_tokens, completion_text_tokens, completion_audio_tokens, completion_image_tokens, reasoning_tokens, accepted_prediction_tokens, rejected_prediction_tokens,
    usage, reported_cost, metadata, request, cursor, attempts_used) AS
SELECT j.id, j.tenant, j.status, j.batch, j.custom_id, j.idempotency_key, j.endpoint, j.model,
    j.priority, j.attempt, j.max_attempts, strftime('%Y-%m-%dT%H:%M:%S', j.created_at / 1000000, 'unixepoch') || printf('.%06dZ', j.created_at % 1000000), strftime('%Y-%m-%dT%H:%M:%S', j.not_before / 1000000, 'unixepoch') || printf('.%06dZ', j.not_before % 1000000), strftime('%Y-%m-%dT%H:%M:%S', j.deadline / 1000000, 'unixepoch') || printf('.%06dZ', j.deadline % 1000000),
    strftime('%Y-%m-%dT%H:%M:%S', j.started_at / 1000000, 'unixepoch') || printf('.%06dZ', j.started_at % 1000000), strftime('%Y-%m-%dT%H:%M:%S', j.finished_at / 1000000, 'unixepoch') || printf('.%06dZ', j.finished_at % 1000000),
    CASE WHEN j.status <> 'queued' THEN NULL
         WHEN j.waiting_for IS NULL AND j.run_at > (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000) THEN 'start'
         WHEN e.state = 'paused' THEN 'endpoint_paused'
         WHEN j.run_at > (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000) THEN j.waiting_for
         ELSE 'slot' END,
    CASE WHEN j.status <> 'queued' THEN NULL
         WHEN e.state = 'paused' AND e.probe_at > j.run_at THEN strftime('%Y-%m-%dT%H:%M:%S', e.probe_at / 1000000, 'unixepoch') || printf('.%06dZ', e.probe_at % 1000000)
         WHEN j.run_at > (CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000) THEN strftime('%Y-%m-%dT%H:%M:%S', j.run_at / 1000000, 'unixepoch') || printf('.%06dZ', j.run_at % 1000000)
         WHEN e.state = 'paused' THEN strftime('%Y-%m-%dT%H:%M:%S', e.probe_at / 1000000, 'unixepoch') || printf('.%06dZ', e.probe_at % 1000000)
         ELSE NULL END,
    r.finish_reason, r.content, r.reasoning_content, r.refusal, r.tool_calls, r.response, r.response_id,
    r.response_model, r.system_fingerprint, j.error_code, j.error_message, j.error,
    a.prompt_tokens, a.completion_tokens, a.total_tokens, a.cached_tokens, a.cache_write_tokens, a.prompt_text_tokens, a.prompt_audio_tokens, a.prompt_image_tokens, a.completion_text_tokens, a.completion_audio_tokens, a.completion_image_tokens, a.reasoning_tokens, a.accepted_prediction_tokens, a.rejected_prediction_tokens,
    r.usage, a.reported_cost, j.metadata, q.request, f.cursor, j.attempts_used
FROM afterword_jobs j
LEFT JOIN afterword_finished f ON f.job_id = j.id
LEFT JOIN afterword_requests q ON q.job_id = j.id
LEFT JOIN afterword_attempts a ON a.job_id = j.id AND a.attempt = j.answer_attempt
LEFT JOIN afterword_answers r ON r.job_id = j.id AND r.attempt = j.answer_attempt
LEFT JOIN afterword_endpoints e ON e.name = j.endpoint
UNION ALL
SELECT i.id, CAST(substr(i.tenant, 1, 255) AS text), CAST('queued' AS text), CAST(substr(i.batch, 1, 255) AS text),
    CAST(substr(i.custom_id, 1, 255) AS text), CAST(substr(i.idempotency_key, 1, 255) AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS integer),
    CAST(0 AS integer), CAST(NULL AS integer), strftime('%Y-%m-%dT%H:%M:%S', i.created_at / 1000000, 'unixepoch') || printf('.%06dZ', i.created_at % 1000000), NULL, NULL,
    NULL, NULL,
    'slot', NULL,
    CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text),
    CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text),
    CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer),
    CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer), CAST(NULL AS integer),
    CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS integer), CAST(0 AS integer)
FROM afterword_inbox i;
