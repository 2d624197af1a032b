"""Which part of the log commands read, and how `--dry-run` tells it."""

from typing import Annotated

import typer
from joblog.services.cli.context import Output, note
from joblog.services.cli.output import print_document
from joblog.services.replay.archives import Part, ranges_of
from joblog.services.settings.model import Settings

LaneOption = Annotated[
    list[int] | None, typer.Option("--lane", min=0, help="Read this lane only.", show_default="all")
]
ReadNothingOption = Annotated[bool, typer.Option("--dry-run", help="Say how much would be read, and read nothing.")]
PLACE = "a time, -1h, or an offset in one --lane"


def print_ranges(settings: Settings, part: Part, output: Output, nothing: str = "read") -> None:
    """Print the offsets of a part of the log, and that nothing was done."""
    ranges = {lane: (one.start, one.stop) for lane, one in ranges_of(settings, part).items()}
    offsets = sum(stop - start for start, stop in ranges.values())
    topic = settings.names.events
    print_document({"topic": topic, "lanes": len(ranges), "offsets": offsets, "ranges": ranges}, output)
    note(f"nothing was {nothing} (--dry-run)")
