"""What the service that takes uploads tells: a photograph has arrived. It knows neither runs nor jobs."""

from typing import Final, Literal

from joblog.services.detection.requests import RunId
from joblog.streams.contract.fields import StrictMessage, Text

#: The topic, behind the prefix of the installation.
UPLOADS: Final = "uploads"


class ImageUploaded(StrictMessage):
    """A photograph has arrived at this path; `run_id` is the name that the upload was given."""

    type: Literal["image.uploaded"] = "image.uploaded"
    run_id: RunId
    photograph: Text
