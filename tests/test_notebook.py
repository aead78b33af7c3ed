import base64
import html.parser
import inspect
import io
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import course_lib.notebook
from course_lib.claims import claim
from course_lib.errors import InputError
from course_lib.notebook import animation, frame


def test_source_is_shown_whole_and_as_python(monkeypatch):
    shown = []
    monkeypatch.setattr(course_lib.notebook, "display", shown.append)
    course_lib.notebook.show_source(claim)
    assert shown[0].data == f"```python\n{inspect.getsource(claim)}```"


CELL = """
import matplotlib.pyplot as plt
from course_lib.notebook import refreshed

def draw(step):
    _, ax = plt.subplots(figsize=(1, 1))
    ax.set_title(f"step {step}")
    return ax

show = refreshed(draw)
for step in range(5):
    show(step)
print(len(plt.get_fignums()), "figures left open")
"""


@pytest.mark.parametrize(("quiet", "pictures"), [("", 1), ("1", 0)])
def test_one_picture_is_refreshed_and_none_is_shown_where_bars_are_silent(quiet, pictures, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", quiet)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=300).execute()
    outputs = notebook.cells[0].outputs
    assert len([one for one in outputs if "image/png" in one.get("data", {})]) == pictures
    assert [one.text for one in outputs if one.output_type == "stream"] == ["0 figures left open\n"]


# ── Animations ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, each a bundle of forms by their MIME types."""
    bundles = []
    monkeypatch.setattr(course_lib.notebook, "display", lambda bundle, *, raw: bundles.append(bundle))
    return bundles


class Tags(html.parser.HTMLParser):
    """Collects the attributes of each element by its name."""

    def __init__(self, text):
        super().__init__()
        self.found = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found[tag] = dict(attrs)


def moving_square(count=5, side=24):
    """Frames in which a blue square goes to the right on white."""
    frames = np.full((count, side, side, 3), 255, dtype=np.uint8)
    for step in range(count):
        frames[step, 8:16, 3 * step : 3 * step + 8] = (0, 0, 200)
    return list(frames)


def noise(count, side):
    return list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def data_of(address, kind):
    start = f"data:image/{kind};base64,"
    assert address.startswith(start)
    return base64.b64decode(address.removeprefix(start))


def test_animation_plays_all_frames_in_order_for_ever_and_rests_on_the_last(shown):
    frames = moving_square()
    animation(frames, alt="A square moves to the right", seconds=0.1, last_seconds=1.5)
    gif = Image.open(io.BytesIO(data_of(Tags(shown[0]["text/html"]).found["img"]["src"], "gif")))
    assert (gif.n_frames, gif.info["loop"]) == (5, 0)
    durations = []
    for step, expected in enumerate(frames):
        gif.seek(step)
        durations.append(gif.info["duration"])
        assert np.abs(np.asarray(gif.convert("RGB"), int) - expected).max() <= 4
    assert durations == [100, 100, 100, 100, 1500]


def test_animation_stands_still_for_readers_who_prefer_that_and_on_paper(shown):
    frames = moving_square()
    animation(frames, alt="A square moves to the right")
    source = Tags(shown[0]["text/html"]).found["source"]
    assert source["media"] == "(prefers-reduced-motion: reduce)"
    still = data_of(source["srcset"], "png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(still))), frames[-1])
    assert base64.b64decode(shown[0]["image/png"]) == still
    assert shown[0]["text/plain"] == "<an animation of 5 pictures>"


def test_animation_can_be_folded_away_and_has_its_words(shown):
    animation(moving_square(), alt='A square says "x < y"')
    found = Tags(shown[0]["text/html"]).found
    assert "open" in found["details"] and "summary" in found
    assert found["img"]["alt"] == 'A square says "x < y"'


def test_animation_takes_nothing_from_elsewhere(shown):
    animation(moving_square(), alt="A square moves")
    assert not re.search(r"https?:|//[a-z]+\.", re.sub(r"base64,[^\"]+", "", shown[0]["text/html"]))


def test_frames_share_one_palette(shown):
    animation(noise(4, 32), alt="Noise", colours=8)
    gif = Image.open(io.BytesIO(data_of(Tags(shown[0]["text/html"]).found["img"]["src"], "gif")))
    found = set()
    for step in range(gif.n_frames):
        gif.seek(step)
        found |= set(map(tuple, np.asarray(gif.convert("RGB")).reshape(-1, 3)))
    assert 2 <= len(found) <= 8


def test_an_animation_that_is_too_large_is_refused_with_both_sizes(shown):
    with pytest.raises(InputError, match=r"found an animation of [\d,]+ bytes, allowed are 1,000: take fewer"):
        animation(noise(4, 64), alt="Noise", largest_bytes=1_000)
    assert not shown


def test_by_default_an_animation_fits_a_notebook():
    with pytest.raises(InputError, match="allowed are 400,000"):
        animation(noise(40, 128), alt="Noise", colours=256)


def test_one_frame_is_no_animation_and_all_have_one_size():
    with pytest.raises(InputError, match="found 1 frames"):
        animation(moving_square(count=1), alt="A square")
    with pytest.raises(InputError, match=r"found frames of \(20, 20\) and \(24, 24\) px"):
        animation([moving_square()[0], moving_square(side=20)[0]], alt="A square")


def test_a_frame_is_the_figure_as_it_looks_now():
    figure, ax = plt.subplots(figsize=(2, 1), dpi=50)
    ax.set_position([0, 0, 1, 1])
    ax.set_axis_off()
    frames = []
    for colour in ("#FF0000", "#0000FF"):
        ax.clear()
        ax.set_axis_off()
        ax.add_patch(plt.Rectangle((0, 0), 1, 1, color=colour))
        frames.append(frame(figure))
    plt.close(figure)
    assert [picture.shape for picture in frames] == [(50, 100, 3)] * 2
    assert frames[0][25, 50].tolist() == [255, 0, 0] and frames[1][25, 50].tolist() == [0, 0, 255]
