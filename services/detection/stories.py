"""The runs of a demonstration: what happens to each photograph, and the state that its job must reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from typing import Final

from joblog.services.detection.manager import RETRIES
from joblog.streams.contract.states import State


class Upload(StrEnum):
    """How the photograph of a run arrives."""

    WHOLE = "whole"
    TRUNCATED = "truncated"  # the connection broke off
    LATE = "late"  # after the first attempt failed because it was missing
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Story:
    """One kind of run; its job takes at least `attempts`."""

    name: str
    photograph: str
    upload: Upload
    expected: State
    attempts: int
    withdrawn: bool = False


STORIES: Final = (
    Story("portrait", "astronaut.png", Upload.WHOLE, State.SUCCEEDED, 1),
    Story("late upload", "rocket.jpg", Upload.LATE, State.SUCCEEDED, 2),
    Story("damaged", "coffee.png", Upload.TRUNCATED, State.FAILED, 1 + RETRIES),
    Story("withdrawn", "chelsea.png", Upload.WHOLE, State.DELETED, 0, withdrawn=True),
    Story("coins", "coins.png", Upload.WHOLE, State.SUCCEEDED, 1),
    Story("never uploaded", "camera.png", Upload.NEVER, State.FAILED, 1 + RETRIES),
    Story("galaxies", "hubble_deep_field.jpg", Upload.WHOLE, State.SUCCEEDED, 1),
)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that will be requested."""

    run_id: str
    story: Story

    @property
    def starts_by_upload(self) -> bool:
        """Whether the event of its upload starts it; others are requested before their photograph is there.

        A withdrawal is read where requests are, so that it never comes before what it withdraws.
        """
        return self.story.upload in {Upload.WHOLE, Upload.TRUNCATED} and not self.story.withdrawn


def plan(count: int) -> Sequence[PlannedRun]:
    """`count` runs, which take turns with the stories."""
    return [
        PlannedRun(f"run-{number}-{story.name.replace(' ', '-')}", story)
        for number, story in enumerate(islice(cycle(STORIES), count), start=1)
    ]
