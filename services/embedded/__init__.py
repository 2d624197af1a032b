"""A real Kafka broker and a real Postgres as child processes."""
