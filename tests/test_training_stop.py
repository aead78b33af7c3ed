import os
import signal
import socket
import subprocess
import sys
import time
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator

from course_lib.training import stop as stopping
from course_lib.training.stop import Stopped, StopRequest

LIMIT_SECONDS = 180
WEIGHTS = ("baseline.safetensors", "discriminator.safetensors", "generator.safetensors")

# Who is sent what, after which part of the training: one of two processes, both, or the launcher, which passes it on.
# A Ctrl-C in a terminal goes to all three.
STOPS = [
    ("second", signal.SIGTERM, 0.6),
    ("both", signal.SIGTERM, 0.5),
    ("launcher", signal.SIGTERM, 0.7),
    ("all", signal.SIGINT, 0.8),
    ("first", signal.SIGTERM, 0.4),
    ("second", signal.SIGTERM, 0.0),
    ("first", signal.SIGTERM, 0.1),
    ("second", signal.SIGTERM, 0.2),
    ("all", signal.SIGINT, 0.3),
    ("both", signal.SIGTERM, 1.0),
]


@pytest.fixture(autouse=True)
def ctrl_c_is_not_ignored():
    """A shell lets what it starts in the background ignore Ctrl-C; these tests send it themselves."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def alone():
    return Mock(spec=Accelerator, num_processes=1)


def test_a_second_signal_acts_at_once(monkeypatch):
    monkeypatch.setattr(stopping, "ECHO_SECONDS", 0.0)
    went_on = []
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(signal.SIGINT)
        went_on.append("after the first")
        signal.raise_signal(signal.SIGINT)
        went_on.append("after the second")
    assert went_on == ["after the first"]


def test_the_echo_of_a_signal_is_no_second_one(alone):
    """A launcher passes on what the terminal has sent to its processes already."""
    with pytest.raises(Stopped), StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise Stopped(stop.agreed(alone), step=1, saved=True)


def test_a_signal_that_nobody_answered_is_sent_again():
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("numbers, agreed", [([0, 0], None), ([0, signal.SIGTERM], signal.SIGTERM)])
def test_a_signal_to_one_process_stops_all(numbers, agreed):
    several = Mock(spec=Accelerator, num_processes=2, device="cpu", gather=lambda own: torch.tensor(numbers))
    with StopRequest() as stop:
        assert stop.agreed(several) == agreed


def arguments(out, *more):
    return ["-m", "course_lib", "train", "ssgan", "--scale", "quick", "--epochs", "2", "--out", str(out), *more]


def start_with_launcher(out, *more):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [open_process([*launcher, *arguments(out, *more)])]


def start_both(out, *more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    command = [sys.executable, *arguments(out, *more)]
    return [open_process(command, **place, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]


def open_process(command, **environment):
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait(processes):
    """Return exit codes and what was said; a process that has not ended in time fails the test."""
    ends = time.monotonic() + LIMIT_SECONDS
    try:
        said = [process.communicate(timeout=max(1, ends - time.monotonic()))[1] for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail("a process hangs")
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    return [process.returncode for process in processes], "\n".join(said)


def wait_for(path, processes):
    ends = time.monotonic() + LIMIT_SECONDS
    while not path.exists() and all(process.poll() is None for process in processes):
        assert time.monotonic() < ends, f"{path} never came"
        time.sleep(0.01)


def send(number, who, processes):
    if who == "all":
        os.killpg(processes[0].pid, number)
        return
    for process in {"first": processes[:1], "second": processes[1:], "both": processes, "launcher": processes}[who]:
        process.send_signal(number)


def test_two_processes_stop_together_and_go_on_to_the_same_bytes(tmp_path, of_many):
    whole = tmp_path / "whole"
    processes = start_both(whole)
    wait_for(whole / ".lock", processes)  # from here on there is something to train
    began = time.monotonic()
    wait_for(whole / "checkpoints" / "ssgan", processes)
    seconds = time.monotonic() - began
    codes, said = wait(processes)
    assert codes == [0, 0], said
    assert "broadcast_buffers" not in said  # torch 2.13 deprecates this name

    for case, (who, number, part) in enumerate(STOPS[: of_many(1, len(STOPS))]):
        out = tmp_path / f"stopped-{case}"
        processes = start_with_launcher(out) if who in ("launcher", "all") else start_both(out)
        wait_for(out / ".lock", processes)
        time.sleep(part * seconds)
        send(number, who, processes)
        wait(processes)
        codes, said = wait(start_both(out, "--resume"))
        assert codes == [0, 0], said
        for name in WEIGHTS:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (who, part, name)
