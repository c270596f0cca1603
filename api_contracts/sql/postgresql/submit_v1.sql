CREATE VIEW submit_v1 (id, job) AS SELECT id, job FROM afterword_inbox;
