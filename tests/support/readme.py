"""The examples in the README, for the tests that run them."""

import re
from pathlib import Path
from typing import Any, Final

README: Final = Path(__file__).parents[2] / "README.md"
CAPABILITIES: Final = "What jobs can do"
#: What is in those examples that need topics or a database: tests/acceptance runs them, tests/unit all others.
BEYOND_MEMORY: Final = ("monitor.", "client.recurring.", "psycopg.")


def code(name: str) -> str:
    """The block of Python that begins with a comment of this file's name."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(f"# {name}"))
    return str(found)


def examples() -> dict[str, list[str]]:
    """The blocks of Python in the section on capabilities that are no files, by their heading."""
    section = README.read_text("utf-8").partition(f"\n## {CAPABILITIES}\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.*)$", section, flags=re.MULTILINE)
    return {
        heading: [block for block in re.findall(r"```python\n(.*?)```", part, re.DOTALL) if not is_file(block)]
        for heading, part in zip(parts[1::2], parts[2::2], strict=True)
    }


def is_file(block: str) -> bool:
    return re.match(r"# \w+\.py", block) is not None


def run(block: str, names: dict[str, Any]) -> None:
    """Run an example among these names."""
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - it is this repository's own text
