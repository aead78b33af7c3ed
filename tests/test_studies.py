import json

import pytest

from course_lib import studies
from course_lib.cli import main
from course_lib.errors import InputError


@pytest.mark.parametrize(
    "arguments, setting",
    [
        ("train ssgan --scale full --seed 3", ""),
        ("train ssgan --scale quick --labels 50 --ablation real_fakes --seed 0", "labels=50,ablation=real_fakes"),
        ("train ssgan --scale full --no-augmentation --seed 0", "no-augmentation"),
    ],
)
def test_a_setting_is_what_a_run_changes_besides_its_seed(arguments, setting):
    assert studies.setting(f"python -m course_lib {arguments}") == setting


def of(*runs):
    return {"small": studies.Study("How?", runs)}


def test_a_study_keeps_what_its_runs_recorded_and_is_not_made_twice(tmp_path, monkeypatch, capsys):
    runs = [f"train ssgan --scale quick --epochs 1 --seed {seed}" for seed in (1, 0)]
    monkeypatch.setattr(studies, "STUDIES", of(*runs))
    assert main(["study", "small", "--out", str(tmp_path), "--jobs", "2"]) == 0
    path = tmp_path / "small.json"
    assert capsys.readouterr().out.strip() == str(path)
    found = json.loads(path.read_text())
    assert [entry["command"] for entry in found] == [f"python -m course_lib {run}" for run in runs]
    assert found[0]["metrics"] != found[1]["metrics"]
    records = sorted(tmp_path.glob("*/record.json"))
    before = [record.stat().st_mtime_ns for record in records]
    studies.run("small", tmp_path)
    assert len(before) == 2 and [record.stat().st_mtime_ns for record in records] == before
    assert json.loads(path.read_text()) == found


def test_a_run_that_fails_is_named_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "STUDIES", of("train ssgan --scale quick --labels 7"))
    with pytest.raises(InputError, match="--labels 7` ended with exit code 2: .*use a multiple of 10"):
        studies.run("small", tmp_path)
    assert not (tmp_path / "small.json").exists()


def test_what_cannot_be_run_is_named(tmp_path):
    with pytest.raises(InputError, match="study 'labels' is unknown: use label_budget"):
        studies.run("labels", tmp_path)
    with pytest.raises(InputError, match="jobs=0 runs nothing"):
        studies.run("label_budget", tmp_path, jobs=0)
