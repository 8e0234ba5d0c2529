"""What the README says that can be checked."""

from pathlib import Path

from tests.helpers import supported


def test_the_table_of_models_is_what_the_tests_run():
    assert supported.table() in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
