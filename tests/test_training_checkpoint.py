import random

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import runtime
from course_lib.errors import InputError
from course_lib.files import read_sealed, write_sealed
from course_lib.training.average import RunningAverage
from course_lib.training.checkpoint import Checkpoint, Checkpoints, RandomStateError


class Saved:
    """Checkpoints of steps 8 and 12 of a run that trains nothing, and how to go back to the newest."""

    def __init__(self, folder):
        self.accelerator = runtime.start(0, "float32", 1)
        network = nn.Linear(3, 2)
        self.average = RunningAverage(network, 0.9, "cpu")
        self.accelerator.prepare(network, torch.optim.Adam(network.parameters()))
        self.checkpoints = Checkpoints(folder, {"recipe": "test"})
        for step in (8, 12):
            self.checkpoints.save(self.accelerator, step, self.average, {"history": [{"step": 6, "loss": 0.5}]})
        self.newest = folder / "step-00000012"

    def used(self):
        return self.checkpoints.newest().step

    def restore(self):
        self.checkpoints.restore(self.accelerator, self.checkpoints.newest(), self.average)


@pytest.fixture
def saved(tmp_path):
    return Saved(tmp_path)


def test_a_checkpoint_with_a_flipped_bit_is_never_used(saved, of_many):
    dice = random.Random(0)
    paths = sorted(path for path in saved.newest.rglob("*") if path.is_file())
    assert len(paths) == 5
    for number in range(of_many(150, 3000)):
        path = paths[number % len(paths)]
        whole = path.read_bytes()
        position = dice.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        assert saved.used() == 8, f"bit {position} of {path.name}"
        path.write_bytes(whole)
    assert saved.used() == 12


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": {}, "step": 12, "identity": {"recipe": "test"}}', "[" * 10**5]
)
def test_a_manifest_that_is_none_is_damage(saved, text):
    (saved.newest / "manifest.json").write_text(text)
    assert saved.used() == 8


def test_a_manifest_of_another_version_is_damage(saved, caplog):
    path = saved.newest / "manifest.json"
    write_sealed(path, {key: value for key, value in read_sealed(path).items() if key != "progress"})
    assert saved.used() == 8 and "another version" in caplog.text


def test_a_file_too_many_is_damage(saved, caplog):
    (saved.newest / "accelerate" / "model_1.safetensors").write_bytes(b"")
    assert saved.used() == 8 and "model_1.safetensors is not what was written" in caplog.text


def test_a_checkpoint_under_the_name_of_another_step_is_damage(saved, caplog):
    saved.newest.rename(saved.newest.with_name("step-00000013"))
    assert saved.used() == 8 and "step 12" in caplog.text


def test_a_file_in_place_of_a_checkpoint_is_damage(saved):
    (saved.newest.parent / "step-00000016").write_text("mine")
    assert saved.used() == 12


def draw():
    """Take a number from every random generator there is on each machine."""
    return random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002


def test_every_random_state_comes_back(saved):
    expected = draw()
    assert draw() != expected
    saved.restore()
    assert draw() == expected


@pytest.mark.parametrize(
    "module, setter, name",
    [(random, "setstate", "Python"), (np.random, "set_state", "NumPy"), (torch, "set_rng_state", "cpu")],
)
def test_a_random_state_that_does_not_come_back_is_named_in_one_line(saved, monkeypatch, module, setter, name):
    draw()
    monkeypatch.setattr(module, setter, lambda state: None)
    with pytest.raises(RandomStateError, match=f"random state of {name} saved in .*step-00000012 did not come back"):
        saved.restore()
    assert issubclass(RandomStateError, InputError)


@pytest.fixture
def device_generator(monkeypatch):
    """A function that gives this machine a device with a random generator of its own, and returns the generator."""
    really, generator = runtime._generators, torch.Generator()

    def add(name, read, write):
        monkeypatch.setattr(runtime, "_generators", lambda: really() | {name: (read, write)})

    return generator, add


def test_a_lost_state_of_a_gpu_is_noticed(tmp_path, device_generator):
    """Accelerate, which knows of no such GPU, brings nothing back; where it fails to, it says so in a log at most."""
    generator, add = device_generator
    add("cuda", lambda: [generator.get_state()], lambda states: None)
    saved = Saved(tmp_path)
    saved.restore()
    torch.rand((), generator=generator)
    with pytest.raises(RandomStateError, match="random state of cuda"):
        saved.restore()


def test_a_gpu_that_is_gone_is_noticed(tmp_path, device_generator, monkeypatch):
    generator, add = device_generator
    add("cuda", lambda: [generator.get_state()], lambda states: None)
    saved = Saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(RandomStateError, match="random state of cuda.*kind and number of devices"):
        saved.restore()


def test_the_state_that_accelerate_does_not_save_comes_back(tmp_path, device_generator):
    generator, add = device_generator
    add("mps", generator.get_state, generator.set_state)
    saved = Saved(tmp_path)
    expected = torch.rand((), generator=generator)
    assert torch.rand((), generator=generator) != expected
    saved.restore()
    assert torch.rand((), generator=generator) == expected


def test_a_checkpoint_of_two_processes_is_refused_by_one(saved):
    found = saved.checkpoints.newest()
    of_two = Checkpoint(found.folder, found.step, found.progress, found.random_states * 2)
    with pytest.raises(InputError, match="2 processes, but this one has 1: start 2"):
        saved.checkpoints.restore(saved.accelerator, of_two, saved.average)
