import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest

from course_lib import files, pretrained, recipes, records, studies
from course_lib.cli import main
from course_lib.errors import InputError
from course_lib.studies import Column, Run, Shipped, Study

COLUMNS = {"test_accuracy": Column("accuracy, %", factor=100)}


def of(*runs, **ships):
    return {"small": Study("How?", runs, COLUMNS, ships)}


def short(seed, **changes):
    return Run("ssgan", "quick", seed, {"epochs": 1, **changes})


@pytest.mark.parametrize(
    "run, command",
    [
        (Run("ssgan", "full", 3), "train ssgan --scale full --seed 3"),
        (
            Run("ssgan", "quick", 0, {"labels": 50, "ablation": "real_fakes"}),
            "train ssgan --scale quick --labels 50 --ablation real_fakes --seed 0",
        ),
        (Run("ssgan", "full", 0, {"augmentation": None}), "train ssgan --scale full --no-augmentation --seed 0"),
        (Run("ssgan", "full", 0, {"shift_px": 2.0}), "train ssgan --scale full --shift-px 2 --seed 0"),
        (
            Run("ssgan", "full", 0, {"learning_rate": 0.0012345678}),
            "train ssgan --scale full --learning-rate 0.0012345678 --seed 0",
        ),
        (
            Run("ssgan", "full", 0, {"augment_unlabelled": False, "whole_pixels": True}),
            "train ssgan --scale full --no-augment-unlabelled --whole-pixels --seed 0",
        ),
        (
            Run("dcgan", "full", 0, {"penalty": None, "penalty_weight": 0.0, "penalty_steps": 1}),
            "train dcgan --scale full --penalty none --penalty-weight 0 --penalty-steps 1 --seed 0",
        ),
    ],
)
def test_the_command_of_a_run_asks_for_just_its_settings(run, command, monkeypatch):
    assert run.command == f"python -m course_lib {command}"
    asked = {}
    monkeypatch.setattr(recipes, "run", lambda name, **given: asked.update(name=name, **given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(run.arguments)
    assert (asked["name"], asked["scale"], asked["seed"]) == (run.recipe, run.scale, run.seed)
    assert recipes.settings(run.recipe, scale=run.scale, **asked["changes"]) == run.settings()


def test_a_study_keeps_what_its_runs_recorded_and_is_not_made_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(studies, "STUDIES", of(short(1), short(0)))
    assert main(["study", "small", "--out", str(tmp_path), "--jobs", "2"]) == 0
    path = tmp_path / "small.json"
    assert capsys.readouterr().out.strip() == str(path)
    found = records.read_as(studies.Recorded, path)["runs"]
    assert [entry["identity"]["seed"] for entry in found] == [1, 0]
    assert all(entry["identity"]["settings"] == dataclasses.asdict(short(0).settings()) for entry in found)
    assert found[0]["metrics"] != found[1]["metrics"]
    made = sorted(tmp_path.glob("*/record.json"))
    before = [record.stat().st_mtime_ns for record in made]
    studies.run("small", tmp_path)
    assert len(before) == 2 and [record.stat().st_mtime_ns for record in made] == before
    assert records.read_as(studies.Recorded, path)["runs"] == found


def test_what_a_study_left_is_taken_into_the_package(tmp_path, monkeypatch):
    run = short(2)
    monkeypatch.setattr(studies, "STUDIES", of(run, rival=Shipped(run, ("baseline",))))
    monkeypatch.setattr(studies, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "recorded").mkdir()
    with pytest.raises(InputError, match="small.json cannot be read"):
        studies.keep("small", tmp_path / "runs")
    assert main(["study", "small", "--out", str(tmp_path / "runs"), "--keep"]) == 0
    (accuracy,) = studies.values("small", "test_accuracy", epochs=1)
    record = records.read(tmp_path / "runs" / run.folder / "record.json")
    assert accuracy == record["metrics"]["test_accuracy"]
    assert pretrained.read_record("rival")["metrics"] == {
        "baseline_test_accuracy": record["metrics"]["baseline_test_accuracy"]
    }


def test_a_run_that_fails_is_named_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "STUDIES", of(Run("ssgan", "quick", 0, {"labels": 7})))
    with pytest.raises(InputError, match="--labels 7 --seed 0` ended with exit code 2: .*use a multiple of 10"):
        studies.run("small", tmp_path)
    assert not (tmp_path / "small.json").exists()


def test_what_cannot_be_run_is_named(tmp_path):
    with pytest.raises(InputError, match="study 'labels' is unknown: use label_budget"):
        studies.run("labels", tmp_path)
    with pytest.raises(InputError, match="jobs=0 cannot be: use 1 to 64"):
        studies.run("label_budget", tmp_path, jobs=0)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file"):
        studies.run("label_budget", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_no_run_changes_and_no_run_measures_is_named():
    with pytest.raises(InputError, match="no run of the study mnist changes {'labels': 7}"):
        studies.values("mnist", "test_accuracy", labels=7)
    with pytest.raises(InputError, match="the study mnist has no metric 'fid': use test_accuracy"):
        studies.values("mnist", "fid")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_leaves_no_process_and_goes_on_where_it_was(number, tmp_path):
    """A study of two runs of twenty epochs, stopped when the first has saved something."""
    begun = (
        "import sys; from course_lib import studies, cli; from course_lib.studies import *;"
        "studies.STUDIES = {'small': Study('?', (Run('ssgan', 'quick', 0, {'epochs': 20, 'checkpoint_steps': 10}),"
        "Run('ssgan', 'quick', 1, {'epochs': 20})), {})};"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell's `&` ignores it
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", begun, "study", "small", "--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        folder = tmp_path / Run("ssgan", "quick", 0, {"epochs": 20, "checkpoint_steps": 10}).folder
        while not list(folder.glob("checkpoints/*/step-*")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == 128 + number, said
    assert "--resume" not in said and f"go on with: -c study small --out {tmp_path}" in said
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in running
    assert not (folder / "record.json").exists() and list(folder.glob("checkpoints/*/step-*"))
    assert not (tmp_path / "small.json").exists()


# ── What comes with the package ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", studies.STUDIES)
def test_todays_settings_are_those_that_were_recorded(name):
    """Make the study anew (`make records`), or take the change back: the book would show what nobody can repeat."""
    runs, entries = studies.STUDIES[name].runs, studies.read(name)
    assert [dict(run.changes) for run in runs] == [entry["changes"] for entry in entries], f"the runs of {name}"
    for run, entry in zip(runs, entries, strict=True):
        identity = entry["identity"]
        assert (run.recipe, run.scale, run.seed) == (identity["recipe"], identity["scale"], identity["seed"])
        today = dataclasses.asdict(run.settings())
        stale = [f"{key}: recorded {identity['settings'].get(key)}, today {value}"
                 for key, value in today.items() if identity["settings"].get(key) != value]  # fmt: skip
        assert not stale and today.keys() == identity["settings"].keys(), f"{name}.json, {run.command}: {stale}"


def test_a_changed_rate_makes_the_records_stale_that_it_shaped(monkeypatch):
    recipe = recipes.RECIPES["ssgan"]
    faster = dataclasses.replace(recipe, quick=dataclasses.replace(recipe.quick, learning_rate=3e-3))
    monkeypatch.setitem(recipes.RECIPES, "ssgan", faster)
    with pytest.raises(AssertionError, match="label_budget.json, .*learning_rate: recorded 0.002, today 0.003"):
        test_todays_settings_are_those_that_were_recorded("label_budget")
    test_todays_settings_are_those_that_were_recorded("mnist")


def test_shipped_weights_are_those_of_their_study():
    shipped = {name: (study, one) for study, of_it in studies.STUDIES.items() for name, one in of_it.ships.items()}
    assert sorted(shipped) == pretrained.names()
    for name, (study, one) in shipped.items():
        record = pretrained.read_record(name)
        entry = next(
            entry for run, entry in zip(studies.STUDIES[study].runs, studies.read(study), strict=True) if run == one.run
        )
        assert record["identity"] == entry["identity"] and record["sha256"].keys() == set(one.networks)
        assert record["metrics"].items() <= entry["metrics"].items()


def test_every_published_number_names_its_source():
    for entry in studies.published("mnist"):
        assert "arxiv.org" in entry["source"] and all(0 < row["error"] < 100 for row in entry["rows"])


@pytest.mark.parametrize("text", ["{", "[]", "\xff", "[" * 10**5, json.dumps({"study": "label_budget", "runs": []})])
def test_a_damaged_record_of_a_study_is_named(text, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "RECORDED", tmp_path)
    (tmp_path / "mnist.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(files.DamagedError, match="mnist.json is not what was written"):
        studies.read("mnist")


def test_a_record_of_a_study_that_lacks_something_is_named(tmp_path, monkeypatch):
    entries = studies.read("mnist")
    monkeypatch.setattr(studies, "RECORDED", tmp_path)
    del entries[2]["metrics"]
    files.write_sealed(tmp_path / "mnist.json", {"study": "mnist", "runs": entries})
    with pytest.raises(files.DamagedError, match="runs.2.metrics: Field required"):
        studies.read("mnist")
