"""Tasks, and what a running one can know of its job."""
