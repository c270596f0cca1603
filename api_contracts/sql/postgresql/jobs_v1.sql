CREATE VIEW jobs_v1 (
    id, tenant, status, batch, custom_id, idempotency_key, endpoint, model, priority, attempts, max_attempts,
    created_at, not_before, deadline, started_at, finished_at, waiting_for, waiting_until, finish_reason, content,
    reasoning_content, refusal, tool_calls, response, response_id, response_model, system_fingerprint, error_code,
    error_message, error, prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens, prompt_text_tokens, prompt_audio_tokens, prompt_image_tokens, completion_text_tokens, completion_audio_tokens, completion_image_tokens, reasoning_tokens, accepted_prediction_tokens, rejected_prediction_tokens,
    usage, reported_cost, metadata, request, cursor, attempts_used) AS
SELECT j.id, j.tenant, j.status, j.batch, j.custom_id, j.idempotency_key, j.endpoint, j.model,
    j.priority, j.attempt, j.max_attempts, j.created_at, j.not_before, j.deadline,
    j.started_at, j.finished_at,
    CASE WHEN j.status <> 'queued' THEN NULL
         WHEN j.waiting_for IS NULL AND j.run_at > statement_timestamp() THEN 'start'
         WHEN e.state = 'paused' THEN 'endpoint_paused'
         WHEN j.run_at > statement_timestamp() THEN j.waiting_for
         ELSE 'slot' END,
    CASE WHEN j.status <> 'queued' THEN NULL
         WHEN e.state = 'paused' AND e.probe_at > j.run_at THEN e.probe_at
         WHEN j.run_at > statement_timestamp() THEN j.run_at
         WHEN e.state = 'paused' THEN e.probe_at
         ELSE NULL END,
    r.finish_reason, r.content, r.reasoning_content, r.refusal, r.tool_calls, r.response, r.response_id,
    r.response_model, r.system_fingerprint, j.error_code, j.error_message, j.error,
    a.prompt_tokens, a.completion_tokens, a.total_tokens, a.cached_tokens, a.cache_write_tokens, a.prompt_text_tokens, a.prompt_audio_tokens, a.prompt_image_tokens, a.completion_text_tokens, a.completion_audio_tokens, a.completion_image_tokens, a.reasoning_tokens, a.accepted_prediction_tokens, a.rejected_prediction_tokens,
    r.usage, a.reported_cost, j.metadata, q.request, f.cursor, j.attempts_used
FROM (
    SELECT id, tenant, status, batch, custom_id, idempotency_key, endpoint,
    model, priority, attempt, attempts_used, max_attempts, created_at, not_before,
    deadline, started_at, finished_at, run_at, waiting_for, answer_attempt, error_code,
    error_message, error, metadata
    FROM afterword_jobs
    UNION ALL
    SELECT id, CAST(left(tenant, 255) AS varchar), CAST('queued' AS varchar), CAST(left(batch, 255) AS varchar), CAST(left(custom_id, 255) AS varchar), CAST(left(idempotency_key, 255) AS varchar), CAST(NULL AS varchar),
    CAST(NULL AS varchar), CAST(NULL AS smallint), 0, 0, CAST(NULL AS integer), created_at, CAST(NULL AS timestamptz),
    CAST(NULL AS timestamptz), CAST(NULL AS timestamptz), CAST(NULL AS timestamptz), CAST(NULL AS timestamptz), CAST(NULL AS varchar), CAST(NULL AS integer), CAST(NULL AS varchar),
    CAST(NULL AS text), CAST(NULL AS jsonb), CAST(NULL AS jsonb)
    FROM afterword_inbox
) j
LEFT JOIN afterword_finished f ON f.job_id = j.id
LEFT JOIN afterword_requests q ON q.job_id = j.id
LEFT JOIN afterword_attempts a ON a.job_id = j.id AND a.attempt = j.answer_attempt
LEFT JOIN afterword_answers r ON r.job_id = j.id AND r.attempt = j.answer_attempt
LEFT JOIN afterword_endpoints e ON e.name = j.endpoint;
