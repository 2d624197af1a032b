"""`python -m joblog.services.monitoring` generates the documents in deploy/; with `--check` it only compares them."""

import typer
from joblog.services.monitoring.documents import main

typer.run(main)
