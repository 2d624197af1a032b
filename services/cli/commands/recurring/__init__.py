"""`joblog recurring`: app has the commands, the others what they share, and the history of runs."""
