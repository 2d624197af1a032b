"""The command `joblog`."""
