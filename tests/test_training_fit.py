import dataclasses
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import runtime
from course_lib.errors import InputError
from course_lib.files import read_sealed, write_sealed
from course_lib.training.average import RunningAverage
from course_lib.training.checkpoint import Checkpoints, RandomStateError
from course_lib.training.fit import Training, fit, hold_then_fall
from course_lib.training.monitor import DivergedError
from course_lib.training.samples import drawing, fixed_latents
from course_lib.training.stop import Stopped

STEPS, PER_EPOCH, EVERY, DRAWN = 20, 6, 4, 5


def run(folder, *, resume=False, at_step=None, do=None, identity=None, learning_rate=0.01, show=None):
    """Train a small network with noise, calling `do` in step `at_step`; return weights, losses, steps, result."""
    accelerator = runtime.start(7, "float32", 1)
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    prepared, optimizer = accelerator.prepare(network, torch.optim.Adam(network.parameters(), lr=learning_rate))
    average = RunningAverage(network, 0.9, accelerator.device)
    draw = drawing(network, fixed_latents(2, 3, seed=0))
    steps_made = []

    def step(number):
        if number == at_step:
            do()
        steps_made.append(number)
        optimizer.zero_grad()
        loss = prepared(torch.randn(8, 3)).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}

    training = Training(
        name="test",
        step=step,
        evaluate=lambda: {"accuracy": len(steps_made) / 100},
        steps=STEPS,
        report_steps=PER_EPOCH,
        steps_per_epoch=PER_EPOCH,
        optimizers=[optimizer],
        learning_rate=hold_then_fall(0.3),
        average=average,
        draw=lambda: draw() + 0 * sum(draw_numbers()),
        draw_steps=DRAWN,
    )
    checkpoints = Checkpoints(folder, identity or {"recipe": "test", "seed": 7}) if folder else None
    fitted = fit(training, accelerator, checkpoints=checkpoints, checkpoint_steps=EVERY, resume=resume, show=show)
    weights = [value.clone() for part in (network, average) for value in part.state_dict().values()]
    losses = [epoch["loss"] for epoch in fitted.history]
    return weights, losses, steps_made, fitted


def draw_numbers():
    """Take a number from every random generator, as a generator of images with noise of its own would."""
    return random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002


class Killed(BaseException):
    """Stands in for the moment at which a process dies."""


def die():
    raise Killed


@pytest.mark.parametrize("moment", [1, 5, 8, 13, 19])
def test_a_killed_run_goes_on_to_the_very_same_weights_losses_and_pictures(tmp_path, moment):
    of_whole, of_killed, of_resumed = {}, {}, {}
    weights, losses, _, _ = run(tmp_path / "whole", show=of_whole.__setitem__)
    with pytest.raises(Killed):
        run(tmp_path / "killed", at_step=moment, do=die, show=of_killed.__setitem__)
    again, losses_again, steps_made, fitted = run(tmp_path / "killed", resume=True, show=of_resumed.__setitem__)
    for drawn in (of_killed, of_resumed):
        assert all(torch.equal(images, of_whole[step]) for step, images in drawn.items())
    assert of_whole.keys() == of_killed.keys() | of_resumed.keys()
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert losses == losses_again
    assert fitted.resumed_from_step == steps_made[0] == moment // EVERY * EVERY


def test_a_picture_that_was_being_shown_when_the_process_died_is_shown_again(tmp_path):
    of_whole, of_resumed = {}, {}
    run(tmp_path / "whole", show=of_whole.__setitem__)
    with pytest.raises(Killed):
        run(tmp_path / "killed", show=lambda step, images: step == STEPS and die())
    run(tmp_path / "killed", resume=True, show=of_resumed.__setitem__)
    assert of_resumed.keys() == {STEPS} and torch.equal(of_resumed[STEPS], of_whole[STEPS])


def test_pictures_are_drawn_before_the_first_step_now_and_then_and_after_the_last():
    drawn = []
    run(None, show=lambda step, images: drawn.append((step, images)))
    assert [step for step, _ in drawn] == [0, 5, 10, 15, 20]
    assert not torch.equal(drawn[0][1], drawn[-1][1])


def test_drawing_does_not_change_the_run():
    weights, losses, _, _ = run(None)
    drawn, losses_again, _, _ = run(None, show=lambda step, images: draw_numbers())
    assert losses == losses_again and all(torch.equal(a, b) for a, b in zip(weights, drawn, strict=True))


def test_without_steps_between_only_the_first_and_the_last_picture_are_drawn():
    drawn = []
    accelerator = runtime.start(0, "float32", 1)
    training = Training("test", lambda step: {}, dict, 3, 1, [], draw=lambda: torch.zeros(1))
    fit(training, accelerator, show=lambda step, images: drawn.append(step))
    assert drawn == [0, 3]


def test_saving_does_not_change_the_run(tmp_path):
    assert run(None)[1] == run(tmp_path)[1]


def test_a_finished_run_repeats_no_step(tmp_path):
    weights, losses, _, _ = run(tmp_path)
    again, losses_again, steps_made, fitted = run(tmp_path, resume=True)
    assert steps_made == [] and fitted.resumed_from_step == STEPS
    assert losses == losses_again and all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_end_saves_and_says_so(tmp_path, number):
    weights, _, _, _ = run(tmp_path / "whole")
    with pytest.raises(Stopped, match="after step 11; its state is saved") as stopped:
        run(tmp_path / "stopped", at_step=10, do=lambda: os.kill(os.getpid(), number))
    assert stopped.value.signal_number == number
    again, _, steps_made, _ = run(tmp_path / "stopped", resume=True)
    assert steps_made[0] == 11
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))


def test_a_stop_in_the_last_step_is_not_lost(tmp_path):
    weights, _, _, _ = run(tmp_path / "whole")
    with pytest.raises(Stopped, match="after step 20; its state is saved"):
        run(tmp_path / "run", at_step=STEPS - 1, do=lambda: os.kill(os.getpid(), signal.SIGINT))
    again, _, steps_made, _ = run(tmp_path / "run", resume=True)
    assert steps_made == [] and all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))


def test_a_stop_while_the_last_checkpoint_is_saved_is_not_lost(tmp_path, monkeypatch):
    save = Checkpoints.save

    def interrupted(self, accelerator, step, *rest):
        if step == STEPS:
            os.kill(os.getpid(), signal.SIGINT)
        save(self, accelerator, step, *rest)

    monkeypatch.setattr(Checkpoints, "save", interrupted)
    with pytest.raises(Stopped, match="after step 20; its state is saved"):
        run(tmp_path)
    assert run(tmp_path, resume=True)[2] == []


def test_a_stop_without_a_folder_says_that_nothing_is_saved():
    with pytest.raises(Stopped, match="nothing is saved"):
        run(None, at_step=3, do=lambda: os.kill(os.getpid(), signal.SIGINT))


def test_signals_are_given_back_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(tmp_path, caplog):
    weights, _, _, _ = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "run", at_step=13, do=die)
    damaged = tmp_path / "run" / "step-00000012" / "accelerate" / "optimizer.bin"
    damaged.write_bytes(damaged.read_bytes()[:100])
    again, _, steps_made, _ = run(tmp_path / "run", resume=True)
    assert "step-00000012 is damaged" in caplog.text and "optimizer.bin" in caplog.text
    assert steps_made[0] == 8
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))


@pytest.mark.parametrize("name", ["manifest.json", "average.safetensors", "accelerate/random_states_0.pkl"])
def test_a_checkpoint_with_a_missing_file_is_passed_over(tmp_path, name):
    with pytest.raises(Killed):
        run(tmp_path, at_step=13, do=die)
    (tmp_path / "step-00000012" / name).unlink()
    assert run(tmp_path, resume=True)[2][0] == 8


def test_a_checkpoint_half_written_when_the_process_died_is_ignored(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, at_step=13, do=die)
    (tmp_path / "step-00000012").rename(tmp_path / ".partial-step-00000012")
    assert run(tmp_path, resume=True)[2][0] == 8


def test_a_random_state_that_does_not_come_back_is_an_error(tmp_path):
    """Accelerate only logs it; the run would go on with other noise."""
    with pytest.raises(Killed):
        run(tmp_path, at_step=13, do=die)
    folder = tmp_path / "step-00000012"
    (folder / "accelerate" / "random_states_0.pkl").unlink()
    manifest = read_sealed(folder / "manifest.json")
    del manifest["files"]["accelerate/random_states_0.pkl"]
    write_sealed(folder / "manifest.json", manifest)
    with pytest.raises(RandomStateError, match="random state of .*cpu saved in .* did not come back"):
        run(tmp_path, resume=True)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(InputError, match="recipe='test'.*recipe='other'.*another output folder"):
        run(tmp_path, resume=True, identity={"recipe": "other", "seed": 7})


def test_only_the_newest_two_checkpoints_are_kept(tmp_path):
    run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000016", "step-00000020"]


def test_the_history_has_the_scores_of_every_epoch():
    history = run(None)[3].history
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert [epoch["step"] for epoch in history] == [6, 12, 18]
    assert [epoch["accuracy"] for epoch in history] == [0.06, 0.12, 0.18]


def follow(step, **changes):
    """Make eight steps of a training, four in an epoch, that is so simple that it can be computed by hand."""
    training = Training(name="test", step=step, evaluate=dict, steps=8, report_steps=4, optimizers=[])
    return fit(dataclasses.replace(training, **changes), runtime.start(0, "float32", 1))


def test_the_history_has_the_mean_loss_of_every_epoch():
    history = follow(lambda number: {"loss": torch.tensor(2.0**number)}).history
    assert [epoch["loss"] for epoch in history] == [(1 + 2 + 4 + 8) / 4, (16 + 32 + 64 + 128) / 4]


def test_every_rate_of_every_optimizer_is_its_own_times_the_schedule():
    rates = []
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    slow = torch.optim.SGD([{"params": weights[0]}, {"params": weights[1], "lr": 0.5}], lr=0.25)
    fast = torch.optim.Adam([weights[2]], lr=2.0)

    def step(number):
        rates.append([group["lr"] for optimizer in (slow, fast) for group in optimizer.param_groups])
        return {}

    follow(step, optimizers=[slow, fast], learning_rate=lambda progress: 1 - progress)
    assert rates == [
        [0.25 * left, 0.5 * left, 2.0 * left] for left in (1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8)
    ]


def test_the_average_takes_the_weights_after_every_step_and_is_what_an_epoch_measures():
    network = nn.Linear(1, 1)
    average = RunningAverage(network, 0.75, "cpu")

    def step(number):
        nn.init.constant_(network.weight, number**2)
        return {}

    history = follow(step, average=average, evaluate=lambda: {"weight": average.network.weight.item()}).history
    by_hand, after = 0.0, []  # the average begins with the weights after the first step, which are 0
    for number in range(8):
        by_hand = 0.75 * by_hand + 0.25 * number**2
        after.append(by_hand)
    assert [epoch["weight"] for epoch in history] == pytest.approx([after[3], after[7]])
    assert average.network.weight.item() == pytest.approx(after[7]) and network.weight.item() == 49


def test_without_epochs_a_line_has_none():
    assert follow(lambda number: {}).history == [{"step": 4}, {"step": 8}]


def test_a_line_says_how_many_epochs_are_complete():
    history = follow(lambda number: {}, report_steps=2, steps_per_epoch=3).history
    assert [(line["step"], line["epoch"]) for line in history] == [(2, 0), (4, 1), (6, 2), (8, 2)]


def test_a_loss_that_is_no_number_stops_the_run_with_advice(tmp_path):
    with pytest.raises(DivergedError, match="loss became (nan|inf) by step 6: .*lower learning rate"):
        run(None, learning_rate=1e30)
    with pytest.raises(DivergedError, match="loss became (nan|inf) by step 4: .*lower learning rate"):
        run(tmp_path, learning_rate=1e30)
    assert list(tmp_path.iterdir()) == []


def test_the_schedule_holds_and_then_falls_to_zero():
    rate = hold_then_fall(0.3)
    assert [rate(0.0), rate(0.3), rate(0.65), rate(1.0)] == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_a_rate_that_is_held_to_the_end_is_constant():
    rate = hold_then_fall(1)
    assert [rate(0.0), rate(0.5), rate(1.0)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("hold", [-0.1, 1.1, float("nan")])
def test_a_hold_that_is_no_fraction_is_refused(hold):
    with pytest.raises(InputError, match=f"hold={hold} .*from 0 to 1"):
        hold_then_fall(hold)
