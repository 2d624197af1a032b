"""`python -m joblog.services.cli` is the command `joblog`."""

from joblog.services.cli.app import main

main()
