import json
import pickle
import shutil

import pytest
import torch

from course_lib import files, pretrained, recipes, records
from course_lib.cli import main
from course_lib.data import images
from course_lib.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return out, recipes.run("ssgan", scale="quick", seed=3, changes={"epochs": 2}, out=out)


@pytest.fixture
def folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    pretrained.ship(run[0], "small", networks=["discriminator", "generator"])
    pretrained.ship(run[0], "rival", networks=["baseline"])
    return tmp_path


def change_record(folder, name, **changes):
    records.write(records.read(folder / name / "record.json") | changes, folder / name)


def test_shipped_networks_come_back_in_evaluation_mode_with_their_record(folder, run):
    found = pretrained.load("small")
    assert found.networks.keys() == {"discriminator", "generator"}
    assert not any(network.training for network in found.networks.values())
    assert found.record["metrics"] == {"test_accuracy": run[1]["metrics"]["test_accuracy"]}
    drawn = found.networks["generator"](torch.randn(2, 100))
    assert found.networks["discriminator"](drawn).logits.shape == (2, 10)


def test_what_is_printed_of_trained_networks_fits_a_screen(folder):
    assert len(repr(pretrained.load("small"))) < 1500


def test_every_name_is_listed_once(folder):
    assert pretrained.names() == ["rival", "small"]


@pytest.mark.parametrize("name, metric", [("small", "test_accuracy"), ("rival", "baseline_test_accuracy")])
def test_evaluation_repeats_the_metric_of_the_run(folder, run, name, metric):
    assert pretrained.evaluate(name) == {metric: pytest.approx(run[1]["metrics"][metric], abs=1e-9)}


def test_a_name_that_is_not_there_is_named_with_those_that_are(folder):
    with pytest.raises(InputError, match="'smal', and it is no folder: use rival, small"):
        pretrained.load("smal")


def test_a_damaged_file_is_noticed(folder):
    path = folder / "small" / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="generator.safetensors is damaged or not the file of its record"):
        pretrained.load("small")


def test_a_file_of_another_network_is_noticed(folder):
    shutil.copy(folder / "rival" / "baseline.safetensors", folder / "small" / "discriminator.safetensors")
    with pytest.raises(InputError, match="damaged or not the file of its record"):
        pretrained.load("small")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_nothing_is_unpickled_even_if_the_record_vouches_for_it(folder):
    path = folder / "small" / "generator.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    hashes = pretrained.read_record("small")["sha256"]
    change_record(folder, "small", sha256=hashes | {"generator": files.sha256(path.read_bytes())})
    with pytest.raises(InputError, match="does not hold the weights of its network"):
        pretrained.load("small")


def test_a_missing_file_is_named(folder):
    (folder / "rival" / "baseline.safetensors").unlink()
    with pytest.raises(InputError, match="baseline.safetensors cannot be read .No such file"):
        pretrained.load("rival")


@pytest.mark.parametrize("text", ["{", '{"metrics": {}}', '{"metrics": {}, "identity": 3}', "[]", "\udcff"])
def test_a_damaged_record_is_named(folder, text):
    (folder / "small" / "record.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="record.json"):
        pretrained.load("small")


def test_a_record_that_does_not_describe_its_networks_is_named(folder):
    change_record(folder, "small", images={"channels": 1, "side_px": 7, "classes": 10})
    with pytest.raises(InputError, match="side_px=7"):
        pretrained.load("small")


def test_other_pictures_than_the_records_are_refused(folder, monkeypatch):
    digits = images.digits()
    digits.test_images[0, 0, 0, 0] ^= 1
    monkeypatch.setitem(images.SOURCES, "digits", lambda: digits)
    with pytest.raises(InputError, match="pictures of digits differ from those of the record"):
        pretrained.evaluate("small")


def test_an_unfinished_run_cannot_be_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(InputError, match="a run that is not finished"):
        pretrained.ship(tmp_path, "x", networks=["generator"])
    assert not (tmp_path / "weights").exists()


# ── The command ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_has_one_name_a_line_and_no_header(folder, capsys):
    assert main(["evaluate", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["rival", "small"]


def test_the_command_succeeds_where_the_record_is_repeated(folder, run, capsys):
    assert main(["evaluate", "--pretrained", "small"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["repeats_its_record"] is True
    assert result["test_accuracy"] == run[1]["metrics"]["test_accuracy"]


def test_the_command_fails_where_the_record_is_missed(folder, capsys):
    change_record(folder, "small", metrics={"test_accuracy": 0.1234})
    assert main(["evaluate", "--pretrained", "small"]) == 1
    assert "recorded 0.1234, tolerance 0.0005" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--pretrained", "none"], ["--list", "--pretrained", "small"]])
def test_the_command_names_what_it_cannot_use(folder, arguments, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ── What comes with the package ───────────────────────────────────────────────────────────────────────────────────


def test_the_weights_of_the_package_load_and_draw():
    assert pretrained.names() == [
        "baseline_mnist_1000",
        "cgan_mnist",
        "classifier_digits",
        "classifier_mnist",
        "dcgan_mnist",
        "denoiser_mnist",
        "diffusion_mnist",
        "ssgan_mnist_1000",
        "vae_mnist",
    ]
    networks = {name: pretrained.load(name).networks for name in pretrained.names()}
    drawn = networks["ssgan_mnist_1000"]["generator"](torch.randn(3, 100))
    assert drawn.shape == (3, 1, 28, 28) and drawn.abs().max() <= 1
    assert networks["baseline_mnist_1000"]["baseline"](drawn).logits.shape == (3, 10)


@pytest.mark.skipif(
    not (images.data_root() / "MNIST" / "raw" / "t10k-images-idx3-ubyte").is_file(),
    reason="MNIST is not on this machine",
)
@pytest.mark.parametrize("name", pretrained.names())
def test_the_weights_of_the_package_repeat_their_records(name):
    record = pretrained.read_record(name)
    assert pretrained.evaluate(name) == pytest.approx(record["metrics"], abs=pretrained.TOLERANCE)
