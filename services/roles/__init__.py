"""The processes: how each role is put together, started, watched and stopped."""
