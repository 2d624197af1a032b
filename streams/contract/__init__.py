"""The contract: commands in, events out, what Joblog's own roles tell each other. Pure."""
