from pathlib import Path
from typing import Any

import msgspec
import pytest
from joblog.services.detection import vision
from joblog.services.detection.stories import STORIES, Upload, plan
from joblog.services.detection.tasks import add_page, clean_up, close_album, make_panorama, run_detection
from joblog.services.detection.workspace import TRUNCATED_SHARE, Workspace, upload
from joblog.services.tasks.context import JobCancelled, JobContext
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import RunJob

RUN = "run-1"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "detection")
    made.create()
    return made


def context(run_id: str = RUN) -> JobContext:
    spec = msgspec.Raw(msgspec.json.encode({"parameters": {"detectionRunId": run_id, "priority": "high"}}))
    job = RunJob(
        job_id="00000000-0000-8000-8000-000000000000",
        lease=1,
        attempt=1,
        lane=0,
        task="detection.run",
        queue="detection",
        spec=spec,
        ready_ms=0,
    )
    return JobContext(job, "DetectionServer")


def run(workspace: Workspace, photograph: Path) -> dict[str, Any]:
    return run_detection(photograph, workspace.root, context())


def test_a_run_tells_what_it_saw_and_leaves_a_marked_photograph(workspace: Workspace) -> None:
    photograph = workspace.upload_path(RUN, "astronaut.png")
    upload("astronaut.png", photograph)
    result = msgspec.json.decode(msgspec.json.encode(run(workspace, photograph)))
    assert result["counts"]["faces"] == 1
    assert vision.read(Path(result["marked"])).width == 512


def test_a_clean_up_removes_what_the_run_left_and_nothing_else(workspace: Workspace) -> None:
    photograph = workspace.upload_path(RUN, "coins.png")
    upload("coins.png", photograph)
    run(workspace, photograph)
    size = photograph.stat().st_size
    other = workspace.scratch("run-2")
    other.mkdir()
    assert clean_up(workspace.root, context()) == {"files_removed": 1, "bytes_removed": size}
    assert not workspace.scratch(RUN).exists()
    assert photograph.exists()
    assert other.exists()


def test_a_clean_up_may_be_repeated(workspace: Workspace) -> None:
    assert clean_up(workspace.root, context()) == {"files_removed": 0, "bytes_removed": 0}


def test_a_run_fails_until_its_photograph_is_there(workspace: Workspace) -> None:
    photograph = workspace.upload_path(RUN, "rocket.jpg")
    with pytest.raises(FileNotFoundError, match=r"run-1\.jpg has not arrived"):
        run(workspace, photograph)
    upload("rocket.jpg", photograph)
    assert run(workspace, photograph)["size"] == {"width": 640, "height": 427}


def test_a_run_fails_on_a_truncated_photograph_and_its_clean_up_removes_the_copy(workspace: Workspace) -> None:
    photograph = workspace.upload_path(RUN, "coffee.png")
    upload("coffee.png", photograph, share=TRUNCATED_SHARE)
    with pytest.raises(OSError, match="truncated"):
        run(workspace, photograph)
    assert clean_up(workspace.root, context())["files_removed"] == 1


def test_an_upload_leaves_no_half_file_beside_it(workspace: Workspace) -> None:
    upload("coins.png", workspace.upload_path(RUN, "coins.png"))
    assert [path.name for path in workspace.uploads.iterdir()] == ["run-1.png"]


def test_the_stories_end_in_each_of_the_three_final_states() -> None:
    assert {story.expected for story in STORIES} == {State.SUCCEEDED, State.FAILED, State.DELETED}
    assert {story.upload for story in STORIES} == set(Upload)


def test_runs_of_a_plan_have_ids_of_their_own_and_tell_the_stories_in_turn() -> None:
    runs = plan(16)
    assert len({one.run_id for one in runs}) == 16
    assert [one.story for one in runs] == [*STORIES, *STORIES, *STORIES[:2]]


def test_pages_are_added_to_the_album_one_by_one(workspace: Workspace) -> None:
    told = [add_page(photograph, workspace.root, context()) for photograph in ("coins.png", "rocket.jpg")]
    assert told == [{"pages": 1}, {"pages": 2}]
    assert close_album(workspace.root) == {"pages": 2}
    assert not workspace.scratch(context().job_id).exists()


def test_the_panorama_stops_when_it_is_told_to(workspace: Workspace) -> None:
    cancelled = context()
    cancelled.cancellation.cancel("cancelled: not needed")
    with pytest.raises(JobCancelled):
        make_panorama(workspace.root, cancelled)
    assert float(workspace.stopped.read_text()) > 0
