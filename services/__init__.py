"""The processes: clients, workers, electors, and everything that owns a main loop or reads settings."""
