"""SQL for both wings: engine, tables, guarded moves. Functions are synchronous and take and return lists."""
