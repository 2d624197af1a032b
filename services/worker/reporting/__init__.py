"""What a worker tells the electors: announcements and the ends of runs."""
