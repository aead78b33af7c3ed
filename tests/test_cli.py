import json
import shutil
import signal
import subprocess
import sys
import time
import types
import urllib.error
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from course_lib import cli, files, recipes, records
from course_lib.recipes import semi_supervised
from course_lib.recipes.settings import CHECKED, options

QUICK = ["train", "ssgan", "--scale", "quick", "--epochs", "1"]


@pytest.fixture(autouse=True)
def keep_signal_handlers():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_last_line_printed_is_the_result_as_json(capsys):
    assert cli.main([*QUICK, "--seed", "5", "--labels", "100", "--no-augmentation"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result) == [
        "recipe", "scale", "seed", "seconds", "resumed_from_step",
        "test_accuracy", "baseline_test_accuracy", "gain_points",
    ]  # fmt: skip
    assert (result["recipe"], result["scale"], result["seed"], result["resumed_from_step"]) == ("ssgan", "quick", 5, 0)
    assert result["gain_points"] == pytest.approx(100 * (result["test_accuracy"] - result["baseline_test_accuracy"]))
    assert 0 < result["seconds"] < 600


def test_recipes_lists_recipes_data_and_options(capsys):
    assert cli.main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for word in ("ssgan", "quick", "full", "digits", "mnist", "fashion_mnist", "--labels", "--resume"):
        assert word in listed


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "sgan"], ["'sgan'", "use ssgan"]),
        ([*QUICK, "--labels", "7"], ["labels=7", "10 classes", "for example 10"]),
        ([*QUICK, "--labels", "5000"], ["labels=5000", "1297 training images", "use at most 1260"]),
        ([*QUICK, "--labels", "many"], ["'many'", "whole number"]),
        ([*QUICK, "--seed", "-1"], ["'-1'", "whole number"]),
        ([*QUICK, "--data", "mnits"], ["'mnits'", "use digits, mnist, fashion_mnist"]),
        ([*QUICK, "--side-px", "10"], ["side_px=10", "multiple of 4"]),
        ([*QUICK, "--seed", "4294967296"], ["seed=4294967296", "0 to 4294967295"]),
        ([*QUICK, "--shift-px", "1" + 310 * "0"], ["shift_px=inf"]),
        ([*QUICK, "--shift-px", "1e39"], ["shift_px=1e+39", "at most"]),
        ([*QUICK, "--shift-px", "2", "--no-augmentation"], ["augmentation=None and shift_px=2.0 contradict"]),
        ([*QUICK, "--learning-rate", "nan"], ["learning_rate=nan", "finite"]),
        ([*QUICK, "--learning-rate", "fast"], ["'fast'", "a number"]),
        ([*QUICK, "--dropout", "1"], ["dropout=1.0", "less than 1"]),
        ([*QUICK, "--precision", "float16"], ["precision='float16'", "'bfloat16'"]),
        ([*QUICK, "--ablation", "no_gan"], ["ablation='no_gan'", "'noise_fakes'"]),
        (["train", "ssgan", "--scale", "quick", "--epochs", "0"], ["epochs=0", "at least 1"]),
        (["train", "ssgan", "--scale", "huge"], ["'huge'", "quick, full or auto"]),
        (["train"], ["recipe", "--help"]),
        (["trian"], ["trian", "train"]),
        ([*QUICK, "--label", "50", "--frobnicate"], ["--frobnicate", "--help"]),
        ([], ["--help"]),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if arguments and arguments[0] == "train" and "--out" not in arguments:
        arguments = [*arguments, "--out", "out"]
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert all(word in captured.err for word in words), captured.err
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_a_file_is_refused_and_kept(tmp_path, capsys):
    path = tmp_path / "out"
    path.write_text("mine")
    assert cli.main([*QUICK, "--out", str(path)]) == 2
    assert f"{path} is a file" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_an_output_folder_that_cannot_be_written_is_refused(capsys):
    assert cli.main([*QUICK, "--out", "/proc/nowhere/out"]) == 2
    captured = capsys.readouterr().err
    assert "/proc/nowhere/out cannot be written" in captured and len(captured.splitlines()) == 1


def test_a_name_that_is_too_long_is_refused(tmp_path, capsys):
    assert cli.main([*QUICK, "--out", str(tmp_path / ("x" * 300))]) == 2
    said = capsys.readouterr().err
    assert "File name too long" in said and len(said.splitlines()) == 1


def test_a_folder_inside_a_file_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main([*QUICK, "--out", str(tmp_path / "file" / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_mnist_without_files_or_network_names_folder_files_and_remedy(tmp_path, capsys, monkeypatch):
    def no_network(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("course_lib.data.download.urlopen", no_network)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    assert cli.main([*QUICK, "--data", "mnist", "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr().err
    assert len(captured.splitlines()) == 1
    for word in (str(tmp_path / "data" / "MNIST" / "raw"), "COURSE_DATA", "no network"):
        assert word in captured
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        assert f"{name}-ubyte(.gz)" in captured
    assert not (tmp_path / "out").exists()


def command(out, *more):
    return [sys.executable, "-m", "course_lib", "train", "ssgan", "--scale", "quick", "--out", str(out), *more]


def result_of(*arguments):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.01)


def test_a_process_killed_without_warning_goes_on_to_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = result_of(whole, "--epochs", "6")
    with subprocess.Popen(command(killed, "--epochs", "6")) as process:
        wait_for(killed / "checkpoints" / "ssgan" / "step-00000100", process)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "record.json").exists()

    result = result_of(killed, "--epochs", "6", "--resume")
    assert result["resumed_from_step"] > 0
    assert result["test_accuracy"] == expected["test_accuracy"]
    for name in ("baseline", "discriminator", "generator"):
        file = f"{name}.safetensors"
        assert (killed / file).read_bytes() == (whole / file).read_bytes()


def test_a_terminated_process_saves_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(command(out), stderr=subprocess.PIPE, text=True) as process:
        wait_for(out / "checkpoints" / "baseline", process)
        process.terminate()
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert "its state is saved" in said and f"--out {out} --resume" in said and "Traceback" not in said


# ── Options of several recipes ────────────────────────────────────────────────────────────────────────────────────


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class CoinSettings:
    """Settings of a recipe that the course does not have."""

    flips: Annotated[int, Field(ge=1, description="how often the coin is thrown")]
    labels: Annotated[int, Field(ge=1, description="how many throws are told")] = 1


@pytest.fixture
def two_recipes(monkeypatch):
    functions = dict.fromkeys(("prepare", "train", "measure", "sample"), print)
    family = types.SimpleNamespace(Settings=CoinSettings, NETWORKS={}, **functions)
    coin = recipes.Recipe("a coin", family, CoinSettings(flips=3), CoinSettings(flips=9))
    monkeypatch.setitem(recipes.RECIPES, "coin", coin)


def test_an_option_of_another_recipe_is_refused_by_name(two_recipes, capsys):
    assert cli.main(["train", "coin", "--unlabelled-batch", "5"]) == 2
    assert "--unlabelled-batch is an option of ssgan, and coin has none of that name" in capsys.readouterr().err
    assert cli.main([*QUICK, "--flips", "3"]) == 2
    assert "--flips is an option of coin, and ssgan has none" in capsys.readouterr().err


def test_help_gives_the_settings_of_each_recipe_and_those_that_several_have(two_recipes, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = capsys.readouterr().out
    assert "settings of ssgan, coin:\n  --labels N" in said
    assert "settings of coin:\n  --flips N" in said and "how often the coin is thrown" in said


def test_a_number_that_is_shared_by_two_recipes_reaches_the_one_that_is_named(two_recipes, monkeypatch):
    asked = {}
    monkeypatch.setattr(recipes, "run", lambda name, **given: asked.update(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", "--labels", "7", "coin", "--flips", "2"])
    assert asked["changes"] == {"labels": 7, "flips": 2}


def test_no_setting_has_the_name_of_another_option():
    names = [option.name for option in options(semi_supervised.Settings)]
    assert len(set(names)) == len(names) and not {"recipe", "scale", "seed", "out", "resume", "command"} & set(names)


# ── A run's own weights ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    recipes.run("ssgan", scale="quick", seed=1, changes={"epochs": 1, "validation": 60}, out=out)
    return out


def test_a_run_of_ones_own_is_measured_again(finished, capsys):
    assert cli.main(["evaluate", "--pretrained", str(finished)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["repeats_its_record"] and result.keys() >= {"validation_accuracy", "baseline_validation_accuracy"}


def test_a_grid_is_drawn_from_weights_and_the_same_one_from_the_same_seed(finished, tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / f"{name}.png"
        command = ["sample", "--pretrained", str(finished), "--out", str(out), "--count", "12", "--seed", str(seed)]
        assert cli.main(command) == 0 and capsys.readouterr().out.strip() == str(out)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() != (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--pretrained", "baseline_mnist_1000", "--out", "x.png"], ["no generator"]),
        (["--pretrained", "nothing", "--out", "x.png"], ["'nothing'", "ssgan_mnist_1000"]),
        (["--pretrained", "x" * 5000, "--out", "x.png"], ["File name too long"]),
        (["--pretrained", "ssgan_mnist_1000", "--out", "x.txt"], ["x.txt", ".png"]),
        (["--pretrained", "ssgan_mnist_1000", "--out", "no/such/x.png"], ["no/such/x.png"]),
        (["--pretrained", "ssgan_mnist_1000", "--out", "x.png", "--count", "0"], ["--count 0", "1 to 10,000"]),
        (["--pretrained", "ssgan_mnist_1000", "--out", "x.png", "--seed", "9" * 30], ["seed", "0 to 4294967295"]),
    ],
)
def test_what_cannot_be_drawn_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", *arguments]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and all(word in said for word in words), said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_somebodys_files_is_never_taken(tmp_path, capsys):
    picture = tmp_path / "curve.png"
    picture.write_text("mine")
    for more in ([], ["--resume"]):
        assert cli.main([*QUICK, "--out", str(tmp_path), *more]) == 2
        said = capsys.readouterr().err
        assert "holds no run of the course, but curve.png" in said and "--resume" not in said
    assert picture.read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_a_run_that_goes_on_under_other_versions_says_so_in_its_record(tmp_path, caplog, monkeypatch):
    now = records.versions()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(records, "versions", lambda: now | {"python": "3.0"})
        patch.setattr(semi_supervised, "train", lambda *_, **__: 1 / 0)
        cli.main([*QUICK, "--out", str(tmp_path / "out")])
    assert cli.main([*QUICK, "--out", str(tmp_path / "out"), "--resume"]) == 0
    assert "begun with other versions: python '3.0', now " in caplog.text
    assert records.read(tmp_path / "out" / "record.json")["earlier_versions"] == [now | {"python": "3.0"}]


# ── Output that nobody takes, disks that refuse ───────────────────────────────────────────────────────────────────


def shell(line):
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_reader_that_has_read_enough_is_no_error():
    code, said = shell(f"{sys.executable} -m course_lib recipes | true")
    assert (code, said) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_an_output_that_is_full_is_one_line():
    code, said = shell(f"{sys.executable} -m course_lib evaluate --list >/dev/full")
    assert code == 2 and said == "course-lib: error: the output cannot be used: No space left on device\n"


def test_a_disk_that_is_full_during_a_run_is_one_line_and_keeps_what_was_saved(tmp_path, monkeypatch, capsys):
    really_write, count = files.write, iter(range(100))

    def full(path, content):
        if next(count) == 2:
            raise OSError(28, "No space left on device", str(path))
        really_write(path, content)

    monkeypatch.setattr(files, "write", full)
    assert cli.main([*QUICK, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "cannot be used: No space left on device" in said and len(said.strip().splitlines()) == 1
    monkeypatch.setattr(files, "write", really_write)
    assert cli.main([*QUICK, "--out", str(tmp_path / "out"), "--resume"]) == 0


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"metrics": {"test_accuracy": 1.0}}', "[" * 10**5])
def test_a_finished_record_that_was_changed_is_refused(text, tmp_path, finished, capsys):
    copied = shutil.copytree(finished, tmp_path / "out")
    (copied / "record.json").write_text(text)
    again = ["train", "ssgan", "--scale", "quick", "--epochs", "1", "--validation", "60", "--seed", "1"]
    assert cli.main([*again, "--out", str(copied), "--resume"]) == 2
    said = capsys.readouterr().err
    assert "record.json is not what was written" in said and len(said.splitlines()) == 1


# ── What is printed when a run is stopped ─────────────────────────────────────────────────────────────────────────


def test_what_is_printed_at_a_stop_can_be_pasted_and_goes_on(tmp_path):
    """Typed anywhere, also where no environment is active: the interpreter is named in full."""
    out = tmp_path / "an out"
    with subprocess.Popen(command(out, "--epochs", "2"), stderr=subprocess.PIPE, text=True) as process:
        wait_for(out / "checkpoints" / "baseline", process)
        process.terminate()
        said = process.stderr.read()
    line = next(line for line in said.splitlines() if "go on with: " in line).partition("go on with: ")[2]
    done = subprocess.run(["bash", "-c", line], cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_from_step"] > 0


def test_a_stop_without_words_still_says_that_it_stopped(monkeypatch, capsys):
    monkeypatch.setattr(recipes, "find", lambda name: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main([*QUICK]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "course-lib: stopped\n"
