CREATE VIEW usage_v1 (
    job_id, attempt, tenant, batch, endpoint, model, metadata, day, outcome, billed, usage_source, usage_flags,
    prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens, prompt_text_tokens, prompt_audio_tokens, prompt_image_tokens, completion_text_tokens, completion_audio_tokens, completion_image_tokens, reasoning_tokens, accepted_prediction_tokens, rejected_prediction_tokens,
    reported_cost) AS
SELECT a.job_id, a.attempt, j.tenant, j.batch, a.endpoint, j.model, j.metadata, date(a.sent_at / 1000000, 'unixepoch'), a.outcome, a.billed,
    a.usage_source, a.usage_flags,
    a.prompt_tokens, a.completion_tokens, a.total_tokens, a.cached_tokens, a.cache_write_tokens, a.prompt_text_tokens, a.prompt_audio_tokens, a.prompt_image_tokens, a.completion_text_tokens, a.completion_audio_tokens, a.completion_image_tokens, a.reasoning_tokens, a.accepted_prediction_tokens, a.rejected_prediction_tokens,
    a.reported_cost
FROM afterword_attempts a
JOIN afterword_jobs j ON j.id = a.job_id
WHERE a.sent_at IS NOT NULL AND a.billed <> 'no';
