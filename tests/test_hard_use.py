"""Thousands of malformed command lines and records: one line each, no traceback, nothing wrong accepted.

A sample in `make test`; all of them with `--thorough`. Malformed data files are in test_data_images.py, flipped bits in
checkpoints in test_training_checkpoint.py.
"""

import copy
import itertools
import random

import pytest

from course_lib import cli, files, pretrained, recipes, records, studies
from course_lib.data import images
from course_lib.errors import InputError
from course_lib.recipes import semi_supervised

# Option -> values that can be used, and values that cannot.
VALUES = {
    "--scale": (["quick", "auto"], ["", "huge", "Quick", "0", "quick full"]),
    "--seed": (["0", "7", "4294967295"], ["-1", "4294967296", "1.5", "1e3", "x", "", "٣x", "0x10", "9" * 400]),
    "--epochs": (["1", "30"], ["0", "-1", "10001", "many", "1.0", "", "9" * 5000]),
    "--data": (["digits"], ["", "mnits", "digits ", "../digits", "\n"]),
    "--labels": (["10", "50", "1000"], ["0", "7", "5000", "-10", "fifty", "1e2"]),
    "--side-px": (["8", "16"], ["0", "7", "10", "100000", "9" * 30, "-8", "8.5"]),
    "--validation": (["0", "397"], ["5", "1297", "100000", "-1", "all"]),
    "--ablation": (["real_fakes", "no_unlabelled"], ["", "no_gan", "REAL_FAKES", "real_fakes,noise_fakes"]),
    "--learning-rate": (["0.001", "1e-3", "0"], ["-1", "nan", "inf", "2", "fast", "", "1e400", "0.1.2"]),
    "--dropout": (["0", "0.5"], ["1", "-0.1", "nan", "half", "1e309"]),
    "--noise-std": (["0", "0.1"], ["-1", "inf", "11", "x"]),
    "--average": (["0", "0.99"], ["1", "-1", "nan"]),
    "--hold": (["0", "1", "0.3"], ["1.1", "-0.1", "nan"]),
    "--beta2": (["0.9"], ["1", "-1", "x"]),
    "--threads": (["1", "2"], ["0", "-1", "1025", "two"]),
    "--precision": (["auto", "float32", "bfloat16"], ["float16", "", "32", "double"]),
    "--shift-px": (["0", "1", "2.5"], ["-1", "65", "1e39", "1" + "0" * 310, "nan", "x"]),
    "--rotation-degrees": (["0", "20"], ["181", "-1", "inf", "x"]),
    "--latent-dim": (["1", "100"], ["0", "10001", "-5", "x"]),
    "--labelled-batch": (["1", "50"], ["0", "100001", "x"]),
    "--checkpoint-steps": (["1", "100"], ["0", "-1", "x"]),
}
FLAGS = ["--augment-unlabelled", "--no-augment-unlabelled"]
STRAY = [
    "--frobnicate",
    "stray",
    "--label",
    "--labels",
    "-x",
    "--",
    "--epochs=",
    "--dropout 0.5",
    "--no-shift-px",
    "\x00",
]


class AcceptedError(Exception):
    """All checks were passed, and the training would begin."""


@pytest.fixture
def no_training(monkeypatch):
    digits = images.digits()
    monkeypatch.setitem(images.SOURCES, "digits", lambda: digits)

    def accept(*_, **__):
        raise AcceptedError

    monkeypatch.setattr(semi_supervised, "train", accept)


def a_command(luck, *, faults):
    """Return a random command to train, with so many words that cannot be used."""
    chosen = luck.sample(list(VALUES), luck.randint(max(1, faults), 6))
    wrong = set(luck.sample(chosen, faults))
    words = [["ssgan"]] + [[option, luck.choice(VALUES[option][option in wrong])] for option in chosen]
    if "--scale" not in chosen:
        words.append(["--scale", "quick"])
    words += [[luck.choice(FLAGS)]] * (luck.random() < 0.3)
    luck.shuffle(words)
    return ["train", *(word for group in words for word in group)]


def refused(arguments, capsys):
    """Say what a command that is refused says; fail where it is accepted or says more than a line."""
    code = cli.main(arguments)
    said = capsys.readouterr()
    assert code == 2 and said.out == "" and len(said.err.splitlines()) == 1, (arguments, code, said)
    return said.err


def test_a_command_with_usable_words_is_accepted(no_training, of_many, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    luck = random.Random(0)
    for _ in range(of_many(60, 1000)):
        arguments = a_command(luck, faults=0)
        small = dict(itertools.pairwise(arguments))
        if small.get("--labels") == "1000" and small.get("--validation") == "397":
            continue  # each is possible, but both are not
        with pytest.raises(AcceptedError):
            cli.main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_command_with_a_word_that_cannot_be_used_is_refused_in_one_line(
    no_training, of_many, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    luck = random.Random(1)
    for number in range(of_many(300, 6000)):
        if number % 4:
            arguments = a_command(luck, faults=luck.randint(1, 3))
        else:
            arguments = a_command(luck, faults=0)
            arguments.insert(luck.randint(2, len(arguments)), luck.choice(STRAY))
            if arguments[-1] == "--":
                arguments.append("stray")
        refused([*arguments, "--out", "out"], capsys)
    assert list(tmp_path.iterdir()) == []


def test_other_commands_refuse_random_words_in_one_line(of_many, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    luck = random.Random(2)
    words = ["evaluate", "sample", "study", "--pretrained", "--list", "--out", "--count", "-1", "x" * 300, "", "."]
    words += ["..", "/dev/null", "label_budget", "--jobs", "0", "\udcff", "--seed", "ssgan", "-h=1", "%s", "{}"]
    for _ in range(of_many(100, 1000)):
        arguments = luck.choices(words, k=luck.randint(0, 5))
        if arguments[:2] == ["evaluate", "--list"] and len(arguments) == 2:
            continue
        refused(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


# ── Records ───────────────────────────────────────────────────────────────────────────────────────────────────────


def damaged(luck, content):
    """Change a few bytes at random: flip a bit, leave bytes out, repeat some, put others in."""
    content = bytearray(content)
    for _ in range(luck.randint(1, 3)):
        at = luck.randrange(len(content))
        match luck.randrange(4):
            case 0:
                content[at] ^= 1 << luck.randrange(8)
            case 1:
                del content[at : at + luck.randint(1, 50)]
            case 2:
                content[at:at] = content[at : at + luck.randint(1, 50)]
            case _:
                content[at:at] = luck.randbytes(luck.randint(1, 5))
        if not content:
            content = bytearray(b"{")
    return bytes(content)


STRANGE = [None, True, -1, 10**400, "", "x", [], {}, [[]], {"x": {}}, 1e308, "<script>", [None], "../../x"]


def twisted(luck, value):
    """Put something strange in the place of a random part of a JSON value, or leave a part out."""
    value = copy.deepcopy(value)
    spot, parents = value, []
    while isinstance(spot, dict | list) and spot and (not parents or luck.random() < 0.8):
        key = luck.choice(list(spot)) if isinstance(spot, dict) else luck.randrange(len(spot))
        parents.append((spot, key))
        spot = spot[key]
    holder, key = parents[-1]
    if luck.random() < 0.4:
        del holder[key]
    else:
        holder[key] = luck.choice(STRANGE)
    return value


def test_no_damaged_record_is_read(of_many, tmp_path, monkeypatch):
    luck = random.Random(3)
    name = pretrained.names()[0]
    whole = {
        "weights": (pretrained.WEIGHTS / name / "record.json").read_bytes(),
        "study": (studies.RECORDED / "mnist.json").read_bytes(),
    }
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    monkeypatch.setattr(studies, "RECORDED", tmp_path)
    (tmp_path / name).mkdir()
    for _ in range(of_many(100, 2000)):
        for kind, path, read in (
            ("weights", tmp_path / name / "record.json", lambda: pretrained.read_record(name)),
            ("study", tmp_path / "mnist.json", lambda: studies.read("mnist")),
        ):
            content = damaged(luck, whole[kind])
            path.write_bytes(content)
            if content != whole[kind]:
                with pytest.raises(InputError, match="is not what was written"):
                    read()


def test_a_sealed_record_with_strange_contents_is_refused_or_has_the_right_form(of_many, tmp_path, monkeypatch):
    """A seal is no signature: whoever sends a record can seal it."""
    luck = random.Random(4)
    record = records.read(pretrained.WEIGHTS / "ssgan_mnist_1000" / "record.json")
    study = {"study": "mnist", "runs": studies.read("mnist")}
    monkeypatch.setattr(studies, "RECORDED", tmp_path)
    for _ in range(of_many(100, 2000)):
        files.write_sealed(tmp_path / "record.json", twisted(luck, record))
        try:
            networks = pretrained.load(tmp_path).networks
        except InputError as error:
            assert "\n" not in str(error)
        else:
            pytest.fail(f"loaded {networks}, though no weights lie there")
        files.write_sealed(tmp_path / "mnist.json", twisted(luck, study))
        try:
            found = studies.read("mnist")
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert all(isinstance(value, int | float) for entry in found for value in entry["metrics"].values())


def test_a_finished_run_whose_record_was_changed_prints_no_metrics(of_many, tmp_path, capsys):
    luck = random.Random(5)
    out = tmp_path / "out"
    recipes.run("ssgan", scale="quick", seed=0, changes={"epochs": 1}, out=out)
    whole = (out / "record.json").read_bytes()
    again = ["train", "ssgan", "--scale", "quick", "--epochs", "1", "--out", str(out), "--resume"]
    for _ in range(of_many(30, 600)):
        (out / "record.json").write_bytes(damaged(luck, whole))
        if (out / "record.json").read_bytes() != whole:
            assert "is not what was written" in refused(again, capsys)
