"""`maskinversion eval paper`, end to end on tiny data sets in their published layouts."""

import json

import pytest

from maskinversion.cli.main import main
from maskinversion.evaluation import run as run_module
from maskinversion.evaluation.baselines import embeddings
from maskinversion.evaluation.paper import TASKS
from maskinversion.evaluation.settings import METHODS
from maskinversion.settings import STARTS
from tests.helpers import datasets


def arguments(tmp_path, *more):
    return ["eval", "paper", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--device", "cpu", *more]


@pytest.mark.slow
def test_every_data_set_with_every_method_and_start_beside_the_paper(tmp_path, capsys):
    datasets.everything(tmp_path / "data")
    assert main(arguments(tmp_path, "--limit", "1")) == 0, capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "paper.json").read_text())
    assert [task["task"] for task in content["tasks"]] == [task.name for task in TASKS] and not content["missing"]
    for task, known in zip(content["tasks"], TASKS):
        measured = [(row["method"], row["start"]) for row in task["rows"] if row["measured"]]
        assert measured == [(method, None) for method in METHODS[:-1]] + [("maskinversion", start) for start in STARTS]
        assert {row["alpha"] for row in task["rows"]} == {None, 5.0 if known.metric == "phrase" else 0.0}
        assert [row["method"] for row in task["rows"] if not row["measured"]] == ["alphaclip"]
        assert all(row["measured"]["n"] == task["regions"] for row in task["rows"] if row["measured"])
        published = {row["method"]: row["paper"] for row in task["rows"] if row["paper"]}
        assert {method: tuple(found.values()) for method, found in published.items()} == {
            method: tuple(figure for figure in figures if figure is not None) for method, figures in known.figures.items()
        }
    words = (tmp_path / "out" / "paper.md").read_text()
    assert capsys.readouterr().out.endswith(words) and "Not measured" not in words
    (line,) = (line for line in words.split("## PascalVOC")[1].split("##")[0].splitlines() if "(start picture)" in line)
    assert line.startswith("| maskinversion (start picture) | ") and line.endswith(" | 85.4 | 93.5 |")


def test_it_goes_on_where_it_was_and_says_what_is_missing(tmp_path, capsys, monkeypatch):
    datasets.voc(tmp_path / "data")
    (tmp_path / "data" / "coco" / "annotations").mkdir(parents=True)
    calls = []

    def counted(method, *rest):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(method)
        return embeddings(method, *rest)

    monkeypatch.setattr(run_module, "embeddings", counted)
    assert main(arguments(tmp_path)) == 130
    monkeypatch.setattr(run_module, "embeddings", lambda method, *rest: calls.append(method) or embeddings(method, *rest))
    assert main(arguments(tmp_path)) == 0
    rows = len(METHODS) - 1 + len(STARTS)
    assert len(calls) == 2 * rows  # of two pictures: nothing twice, nothing left out
    assert main(arguments(tmp_path)) == 0 and len(calls) == 2 * rows
    words = capsys.readouterr().out.split("## Not measured")[-1]
    assert "there is no coco/annotations/instances_val2017.json, no coco/val2017. It is published at cocodataset.org." in words
    assert words.count("\n- ") == len(TASKS) - 1 and "PascalVOC" not in words


def test_a_folder_without_any_of_them_is_refused(tmp_path, capsys):
    assert main(arguments(tmp_path)) == 1 and "there is no folder" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    assert main(arguments(tmp_path)) == 1
    said = capsys.readouterr()
    assert "none of the paper's data sets is in" in said.err and "cs.stanford.edu/~roozbeh/pascal-context" in said.out


def test_damaged_files_stop_it_before_a_model_is_loaded(tmp_path, capsys):
    datasets.everything(tmp_path / "data")
    (tmp_path / "data" / "refcoco+" / "instances.json").write_text("{")
    assert main(arguments(tmp_path, "--clip", "no/such")) == 1
    assert "instances.json could not be read as JSON" in capsys.readouterr().err


def test_the_figures_are_the_papers():
    """Two columns of its table as they are in it, top to bottom."""
    assert [task.figures["maskinversion"] for task in TASKS] == [
        (57.2, 64.0), (56.1, 61.2), (58.3, 65.0), (85.4, 93.5), (58.1, 61.8), (44.7, 63.7), (46.3, 51.2),
    ]  # fmt: skip
    assert [task.figures["global"][0] for task in TASKS] == [14.4, 18.3, 18.4, 40.1, 17.8, 25.0, 28.9]
    assert all(method in (*METHODS, "alphaclip") for task in TASKS for method in task.figures)


def test_other_ways_to_give_files_are_found(tmp_path):
    for task in TASKS:
        for place in zip(*(names[-1:] for names in task.files.values())):
            data = tmp_path / task.key
            for name in place:
                (data / name).mkdir(parents=True)
            found, wanted = task.find(data)
            assert not wanted and set(found) == set(task.files)
