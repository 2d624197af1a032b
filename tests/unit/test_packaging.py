"""The three directories become one package: all of their files, each module under one name."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "projections", "services")

#: What setuptools would put into a wheel, without building one.
OUTPUTS = """
import json
from setuptools.dist import Distribution

distribution = Distribution({"script_name": "setup.py"})
distribution.parse_config_files(["pyproject.toml"])
build = distribution.get_command_obj("build_py")
build.build_lib = ""
build.ensure_finalized()
print(json.dumps(build.get_outputs(include_bytecode=False)))
"""

#: The modules that are named, imported: the names that each file was loaded under.
NAMES = """
import importlib, json, sys
import joblog

for name in sys.argv[1:]:
    importlib.import_module(name)
names = {}
for name, module in sys.modules.items():
    if (file := getattr(module, "__file__", None)) is not None:
        names.setdefault(file, []).append(name)
print(json.dumps({"joblog": joblog.__file__, "names": names}))
"""


def printed(code: str, *arguments: str) -> Any:
    """What the code prints last, as JSON; in a process of its own, which finds only what is installed."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def sources() -> set[Path]:
    return {
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_wheel_holds_every_source_and_nothing_else() -> None:
    assert {Path(output) for output in printed(OUTPUTS)} == {Path("joblog", path) for path in sources()}


def test_every_module_has_one_name_below_a_package_that_is_only_a_name() -> None:
    modules = {
        path for path in sources() if path.suffix == ".py" and not {"migrations", "__main__.py"} & {*path.parts}
    }
    names = {ROOT / path: ".".join(("joblog", *path.with_suffix("").parts)) for path in modules}
    expected = {str(path): [name.removesuffix(".__init__")] for path, name in names.items()}
    found = printed(NAMES, *(name for (name,) in expected.values()))
    assert found["joblog"] is None
    assert {file: found["names"].get(file) for file in expected} == expected


def test_packages_tell_type_checkers_that_they_are_typed() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)
