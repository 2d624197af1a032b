"""The process that applies the topic `events` to Postgres."""
