"""`python -m joblog.services.schemas` generates the documents in deploy/; with `--check` it only compares them."""

import typer
from joblog.services.schemas.documents import main

typer.run(main)
