CREATE VIEW attempts_v1 (
    job_id, attempt, tenant, endpoint, model, sent_at, first_byte_at, first_token_at, finished_at, outcome,
    error_code, error_message, http_status, billed, request_id, retry_after_s, worker, partial,
    prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens, prompt_text_tokens, prompt_audio_tokens, prompt_image_tokens, completion_text_tokens, completion_audio_tokens, completion_image_tokens, reasoning_tokens, accepted_prediction_tokens, rejected_prediction_tokens,
    usage, usage_source, usage_flags, usage_requested, reported_cost, headers) AS
SELECT a.job_id, a.attempt, j.tenant, a.endpoint, j.model, a.sent_at, a.first_byte_at,
    a.first_token_at, a.finished_at, a.outcome, a.error_code, a.error_message, a.http_status,
    a.billed, a.request_id, a.retry_after_s, a.worker_id,
    CASE WHEN a.outcome <> 'completed' THEN r.response END,
    a.prompt_tokens, a.completion_tokens, a.total_tokens, a.cached_tokens, a.cache_write_tokens, a.prompt_text_tokens, a.prompt_audio_tokens, a.prompt_image_tokens, a.completion_text_tokens, a.completion_audio_tokens, a.completion_image_tokens, a.reasoning_tokens, a.accepted_prediction_tokens, a.rejected_prediction_tokens,
    r.usage, a.usage_source, a.usage_flags, a.usage_requested, a.reported_cost, a.headers
FROM afterword_attempts a
JOIN afterword_jobs j ON j.id = a.job_id
LEFT JOIN afterword_answers r ON r.job_id = a.job_id AND r.attempt = a.attempt;
