import inspect
import random

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from course_lib import runtime
from course_lib.errors import InputError


@pytest.mark.parametrize(
    "cuda, other, expected", [(True, True, "full"), (False, True, "quick"), (False, False, "quick")]
)
def test_auto_is_full_where_a_cuda_gpu_is_and_not_on_apples(monkeypatch, cuda, other, expected):
    monkeypatch.delenv("COURSE_SCALE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: other)
    assert runtime.resolve_scale("auto") == expected


def test_the_environment_decides_for_auto_and_for_nothing_else(monkeypatch):
    monkeypatch.setenv("COURSE_SCALE", "full")
    assert runtime.resolve_scale("auto") == "full"
    assert runtime.resolve_scale("quick") == "quick"


@pytest.mark.parametrize("scale, variable", [("big", None), ("auto", "big")])
def test_an_unknown_scale_is_named_with_where_it_came_from(monkeypatch, scale, variable):
    if variable:
        monkeypatch.setenv("COURSE_SCALE", variable)
    with pytest.raises(InputError, match=("COURSE_SCALE" if variable else "scale") + "='big'.*quick, full or auto"):
        runtime.resolve_scale(scale)


def test_the_same_seed_gives_the_same_noise_and_another_seed_other_noise():
    draws = []
    for seed in (1, 1, 2):
        runtime.start(seed, "float32", 1)
        draws.append(torch.randn(8))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    "asked, native, expected",
    [
        ("float32", True, "float32"),
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("bfloat16", False, "bfloat16"),
    ],
)
def test_the_precision_is_the_one_asked_for_and_auto_that_of_the_hardware(monkeypatch, asked, native, expected):
    monkeypatch.setattr(runtime, "bfloat16_is_native", lambda: native)
    runtime.start(0, asked, 1)
    assert runtime.describe()["precision"] == expected


def test_as_many_threads_as_asked_for_or_all_of_them(monkeypatch):
    monkeypatch.setattr(runtime, "ALL_THREADS", 2)
    for asked, expected in ((None, 2), (1, 1)):
        runtime.start(0, "float32", asked)
        assert runtime.describe()["threads"] == expected == torch.get_num_threads()


@pytest.mark.parametrize("scale", runtime.SCALES)
def test_the_environment_decides_the_threads_of_every_library(monkeypatch, scale):
    monkeypatch.setattr(runtime, "ALL_THREADS", 1)
    for threads in (2, 1):
        monkeypatch.setenv("COURSE_THREADS", str(threads))
        runtime.use_threads(scale)
        pools = {pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()}
        assert torch.get_num_threads() == threads
        assert {"openblas", "openmp"} <= pools.keys() and set(pools.values()) == {threads}, pools


@pytest.mark.parametrize("threads", ["0", "-1", "two", "1.5", "²", "999999"])
def test_a_number_of_threads_that_cannot_be_is_named(monkeypatch, threads):
    monkeypatch.setenv("COURSE_THREADS", threads)
    with pytest.raises(InputError, match=f"COURSE_THREADS='{threads}'.*from 1 to 1024"):
        runtime.use_threads("quick")


def test_a_value_is_picked_by_scale():
    assert runtime.by_scale("quick")(quick=5, full=2) == 5
    assert runtime.by_scale("full")(quick=(0, 1), full=(2, 3)) == (2, 3)


def test_whatever_is_drawn_random_generators_are_put_back():
    def draw():
        return random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002

    states = runtime.random_states()
    assert states.keys() == {"Python", "NumPy", "cpu"}
    expected = draw()
    runtime.set_random_states(states)
    with pytest.raises(KeyError), runtime.random_states_kept():
        draw()
        raise KeyError
    assert draw() == expected


@pytest.mark.parametrize(
    "module, there, read, write, name",
    [
        (torch.cuda, torch.cuda, "get_rng_state_all", "set_rng_state_all", "cuda"),
        (torch.mps, torch.backends.mps, "get_rng_state", "set_rng_state", "mps"),
    ],
)
def test_the_generators_of_a_gpu_are_put_back_too(monkeypatch, module, there, read, write, name):
    generator = torch.Generator()
    monkeypatch.setattr(there, "is_available", lambda: True)
    monkeypatch.setattr(module, read, generator.get_state)
    monkeypatch.setattr(module, write, generator.set_state)
    with runtime.random_states_kept():
        inside = torch.rand((), generator=generator)
    assert torch.rand((), generator=generator) == inside
    assert runtime.random_states_unknown_to_accelerate().keys() == ({"mps"} if name == "mps" else set())


@pytest.mark.parametrize("name", ["forward_sync_buffers", "broadcast_buffers"])
def test_buffers_are_not_sent_around_under_the_name_that_this_torch_has_for_it(monkeypatch, name):
    class Wrapper:
        def __init__(self, module, **options):
            pass

    Wrapper.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)])
    monkeypatch.setattr(runtime, "DistributedDataParallel", Wrapper)
    assert runtime.start(0, "float32", 1).ddp_handler.to_kwargs() == {name: False}
