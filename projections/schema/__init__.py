"""The tables in Postgres: which version they have, and how they get there."""
