"""A stored picture that is not the one its cell draws is found; one that differs as on another machine is let pass."""

import base64
import io
from itertools import combinations

import nbformat
import pytest
from PIL import Image, ImageDraw

import notebooks
import pictures


def png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def chart(*points: tuple[int, int], size: tuple[int, int] = (600, 300), colour: str = "#0072b2") -> str:
    """Return a frame with a line through some points."""
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((40, 10, size[0] - 10, size[1] - 40), outline="black")
    draw.line(points, fill=colour, width=4)
    return png(picture)


def showing(*drawn: str) -> list[dict]:
    """Return the outputs of a cell that prints a line and draws some pictures."""
    return [
        {"output_type": "stream", "text": "a line\n"},
        *({"output_type": "display_data", "data": {"image/png": picture}} for picture in drawn),
    ]


RISING = chart((50, 250), (300, 120), (580, 60))
BARS = Image.new("RGB", (600, 300), "white")
ImageDraw.Draw(BARS).rectangle((100, 80, 160, 260), fill="#d55e00")
ImageDraw.Draw(BARS).rectangle((300, 180, 360, 260), fill="#d55e00")


@pytest.mark.parametrize(
    "drawn",
    [
        RISING,
        chart((50, 256), (300, 112), (580, 64)),  # another processor: the curve is a little different
        chart((50, 250), (300, 120), (580, 60), size=(608, 300)),  # a number on the axis is wider
        chart((50, 120), (300, 60), (580, 20)),  # a training ended elsewhere
    ],
)
def test_a_picture_that_differs_as_on_another_machine_is_let_pass(drawn):
    assert pictures.compare(showing(RISING), showing(drawn)) is None


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ([chart((50, 250), (300, 120), (580, 60), colour="#d55e00")], "not the one drawn"),
        ([png(BARS)], "not the one drawn"),
        ([chart((50, 250), (300, 120), (580, 60), size=(600, 400))], "600 x 300 and 600 x 400"),
        ([], "stored: 1, drawn: 0"),
        ([RISING, RISING], "stored: 1, drawn: 2"),
    ],
)
def test_another_picture_is_found(drawn, said):
    assert said in pictures.compare(showing(RISING), showing(*drawn))


def test_pictures_of_one_notebook_can_be_told_apart():
    """If a picture takes the place of another one of its notebook, this is nearly always found."""
    told_apart = []
    for path in notebooks.notebook_paths():
        outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
        drawn = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
        told_apart += [pictures.difference(one, other) is not None for one, other in combinations(drawn, 2)]
    assert sum(told_apart) >= 0.98 * len(told_apart)
