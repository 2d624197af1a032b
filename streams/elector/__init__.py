"""The process that owns lanes: consume, decide, produce, commit."""
