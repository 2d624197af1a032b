"""`python -m joblog.services.schemas` writes the documents in deploy/ anew; with `--check` it only compares."""

import typer
from joblog.services.schemas.documents import main

typer.run(main)
