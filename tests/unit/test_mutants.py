"""`make mutants` takes long and is asked for now and then; that its patches fit the code is seen at once."""

import ast
from pathlib import Path

import pytest

from tests.mutants.catalog import MUTANTS
from tests.mutants.mutant import Patch, StalePatch, stale

ROOT = Path(__file__).parents[2]


def test_every_mutant_fits_the_code() -> None:
    assert stale(MUTANTS, ROOT) == []


def test_every_mutant_is_python() -> None:
    for one in MUTANTS:
        for path, text in one.texts(ROOT).items():
            if path.suffix == ".py":
                ast.parse(text)


def test_every_mutant_has_a_name_of_its_own_and_tests_that_exist() -> None:
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)
    for one in MUTANTS:
        assert one.tests
        for test in one.tests:
            file, _, called = test.partition("::")
            name = called.partition("[")[0]  # of a test with parameters, one may be named
            assert f"def {name}(" in (ROOT / file).read_text() if name else (ROOT / file).is_file()


@pytest.mark.parametrize("old", ["not there", "twice"])
def test_a_patch_that_does_not_fit_is_refused(old: str) -> None:
    with pytest.raises(StalePatch, match=old):
        Patch("a.py", old, "x").applied_to("once, twice, twice")
