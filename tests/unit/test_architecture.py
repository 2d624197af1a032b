"""What import-linter (pyproject.toml) cannot see: where the clock, chance and the environment may be asked."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PURE_ROOMS = next(one["source_modules"] for one in CONTRACTS if one["name"].startswith("The core is pure"))
#: What answers differently from one call to the next, or reaches out of the process.
IMPURE = {"asyncio", "logging", "os", "pathlib", "random", "socket", "subprocess", "threading", "time"}


def modules_of(room: str) -> list[str]:
    """The modules of a package, or the one module that is named."""
    path = ROOT / Path(*room.split(".")[1:])
    if path.is_dir():
        return [".".join(("joblog", *file.relative_to(ROOT).with_suffix("").parts)) for file in path.rglob("*.py")]
    return [room]


def source_of(module: str) -> Path:
    return ROOT / Path(*module.split(".")[1:]).with_suffix(".py")


PURE = sorted(module for room in PURE_ROOMS for module in modules_of(room))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: modules are imported absolutely"
            yield str(node.module)


def attributes_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield f"{ast.unparse(node.value)}.{node.attr}"


@pytest.mark.parametrize("module", PURE)
def test_the_core_asks_no_clock_no_chance_and_no_system(module: str) -> None:
    path = source_of(module)
    assert not IMPURE.intersection(imports_of(path))
    assert not {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}.intersection(attributes_of(path))


@pytest.mark.parametrize("package", ["streams", "projections"])
def test_the_environment_is_read_in_services_only(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not {"os.environ", "os.getenv"}.intersection(attributes_of(path)), path.name


def test_chance_comes_into_ids_only_where_none_is_given() -> None:
    assert {module for module in PURE if "secrets" in imports_of(source_of(module))} == {
        "joblog.streams.contract.ids"
    }
