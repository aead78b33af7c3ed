import pytest
import torch
from torch import Tensor

from course_lib.training import monitor as monitoring
from course_lib.training.monitor import DivergedError, Monitor


class OnApple(Tensor):
    """A tensor on a device that has no double precision, as Apple's GPUs."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        options = options or {}
        if function is Tensor.double or any(given is torch.float64 for given in (*arguments, *options.values())):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return super().__torch_function__(function, types, arguments, options)


def losses(count):
    torch.manual_seed(0)
    return [torch.rand(()) for _ in range(count)]


def test_means_are_taken_in_double_precision_on_a_device_without_it():
    monitor = Monitor("test", steps=50, shown={}, visible=False)
    by_hand = torch.zeros((), dtype=torch.float64)
    for loss in losses(50):
        monitor.record({"loss": loss.as_subclass(OnApple)})
        by_hand = by_hand + loss.double()
    monitor.report(50, {})
    assert monitor.history == [{"step": 50, "loss": by_hand.item() / 50}]


def test_a_line_has_the_means_since_the_line_before_and_an_epoch_where_there_are_epochs():
    monitor = Monitor("test", steps=4, shown={}, visible=False)
    for step in range(4):
        monitor.record({"loss": torch.tensor(2.0**step)})
        if step == 1:
            monitor.report(2, {"score": 0.5})
    monitor.report(4, {}, epoch=7)
    assert monitor.history == [{"step": 2, "loss": 1.5, "score": 0.5}, {"epoch": 7, "step": 4, "loss": 6.0}]


def test_means_go_on_where_a_run_was_saved():
    whole, first, second = (Monitor("test", steps=6, shown={}, visible=False) for _ in range(3))
    for step, loss in enumerate(losses(6)):
        whole.record({"loss": loss})
        (first if step < 4 else second).record({"loss": loss})
        if step == 3:
            second.start(4, first.progress(4))
    whole.report(6, {})
    second.report(6, {})
    assert second.history == whole.history


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_named_at_a_report_and_never_saved(value):
    monitor = Monitor("test", steps=4, shown={}, visible=False)
    with pytest.raises(DivergedError, match=f"score became {value} by step 2"):
        monitor.report(2, {"score": value})
    monitor.record({"loss": torch.tensor(value)})
    with pytest.raises(DivergedError, match=f"test: loss became {value} by step 3: use a lower learning rate"):
        monitor.progress(3)
    with pytest.raises(DivergedError, match="by step 3"):
        monitor.report(3, {})


class Bar:
    """Stands in for tqdm's and keeps what it is told to show."""

    said: dict[str, str]

    def __init__(self, **options):
        Bar.newest = self

    def set_postfix(self, said, refresh):
        self.said = said


def test_the_bar_shows_the_values_asked_for_as_asked(monkeypatch):
    monkeypatch.setattr(monitoring, "tqdm", Bar)
    shown = {"test_accuracy": ".1%", "fid": ".2f", "lost_in_an_ablation": ".3f"}
    monitor = Monitor("test", steps=4, shown=shown)
    monitor.start(0)
    monitor.report(2, {"test_accuracy": 0.9751, "fid": 3.14159, "other_accuracy": 0.5})
    assert Bar.newest.said == {"test accuracy": "97.5%", "fid": "3.14"}
