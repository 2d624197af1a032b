"""The contract as documents: JSON Schemas of commands and events, an AsyncAPI document, and the conformance cases.

They are generated from the pydantic models and the table of topics, and kept in deploy/ for programs in other
languages. `python -m joblog.services.schemas` generates them again; with `--check` it only names those that differ,
and exits with 1.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from joblog.services.conformance.cases import document as conformance_cases
from joblog.services.schemas.asyncapi import asyncapi
from joblog.services.schemas.generated import GeneratedFiles
from joblog.services.schemas.messages import COMMANDS, EVENTS, Schema, enveloped, tag_of
from pydantic import BaseModel

#: deploy/ beside the packages, in a checkout.
DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
FILES: Final = GeneratedFiles(("schemas/*.json", "asyncapi.json", "conformance/*.json"), "models")
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def documents() -> Iterator[tuple[str, Schema]]:
    """Each document with its path below deploy/."""
    for model in (*COMMANDS, *EVENTS):
        yield f"schemas/{tag_of(model)}.json", json_schema(model)
    yield "asyncapi.json", asyncapi()


def generated() -> dict[str, str]:
    """The text of every file that is generated, by its path below deploy/."""
    files = {name: written(document) for name, document in documents()}
    return files | {"conformance/cases.json": written(conformance_cases())}


def json_schema(model: type[BaseModel]) -> Schema:
    """The schema of one command or event as a whole CloudEvent in structured mode."""
    return {
        "$schema": DIALECT,
        "$id": f"urn:joblog:{tag_of(model)}",
        **enveloped(model, "#/$defs/{model}"),
    }


def written(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main(
    check: Annotated[
        bool, typer.Option(help="Write nothing; exit with 1 if a document differs from the models.")
    ] = False,
    directory: Annotated[Path, typer.Option(help="Directory of the documents.")] = DEPLOY,
) -> None:
    """Generate the JSON Schemas, the AsyncAPI document and the conformance cases from the code."""
    expected = generated()
    if not check:
        FILES.write(directory, expected)
    elif said := FILES.drifted(directory, expected):
        print("\n".join(said))
        print("Run python -m joblog.services.schemas to generate them again.")
        raise typer.Exit(1)
