"""The log read again: what it says, compared with what Postgres holds."""
