"""Parameters of jobs that mean something to Joblog itself."""

from typing import Any, Final

from joblog.streams.contract import wire
from msgspec import json

#: With the value `once`, a job that has Succeeded is not run again.
COMPLETION: Final = "Completion"
ONCE: Final = "once"

_parameters: Final = json.Decoder(dict[str, Any]).decode
_spec: Final = json.Decoder(wire.JobSpec).decode


def completes_once(spec: bytes, parameters: bytes) -> bool:
    """Whether a job with this JobSpec, and these parameters set since, is not to run again when it has Succeeded."""
    created = _parameters(_spec(spec).parameters)
    return bool((created | _parameters(parameters)).get(COMPLETION) == ONCE)
