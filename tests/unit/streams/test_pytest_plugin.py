"""The plugin as pytest of a user's project loads it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PLUGIN = "joblog.streams.pytest_plugin"

HEAVY = f"""
import sys
import pytest
before = set(sys.modules)
import {PLUGIN}
print(sorted(set(sys.modules) - before))
"""

TASKS = """
from joblog.services import task

@task("double")
def double(n: int) -> int:
    return 2 * n
"""

TEST = """
from joblog.services import State

def test_a_job_of_a_task_that_the_settings_name(joblog):
    job = joblog.enqueue("double", 21)
    joblog.assert_enqueued("double", args=[21])
    joblog.run_all()
    assert joblog.assert_state(job, State.SUCCEEDED).result == 42

def test_each_test_has_its_own(joblog):
    joblog.assert_nothing_enqueued()
    assert joblog.jobs() == []
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command, env = [sys.executable, *arguments], {**os.environ, **alone}
    return subprocess.run(command, check=False, cwd=directory, env=env, capture_output=True, text=True)


def test_the_plugin_is_what_the_entry_point_names_and_imports_nothing_else(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"joblog": PLUGIN}
    shown = run(tmp_path, "-c", HEAVY)
    assert shown.stdout.strip() == str(["joblog", "joblog.streams", PLUGIN]), shown.stderr


def test_a_users_test_gets_the_fixture_with_the_tasks_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "mytasks.py").write_text(TASKS)
    (tmp_path / "test_mine.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\njoblog_tasks = mytasks\npythonpath = .\n")
    ran = run(tmp_path, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider")
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
