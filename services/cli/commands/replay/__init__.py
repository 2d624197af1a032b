"""`joblog replay`: one module for each command, or several that are alike; app puts them together."""
