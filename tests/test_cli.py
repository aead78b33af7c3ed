import json
import signal
import subprocess
import sys
import time
import urllib.error

import pytest

from course_lib import cli

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
    if arguments and arguments[0] == "train":
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
