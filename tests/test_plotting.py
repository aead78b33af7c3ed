import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib import plotting


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_grid_shows_every_pixel_once_at_its_place():
    images = np.random.default_rng(0).uniform(-1, 1, (5, 1, 4, 6))
    shown = plotting.image_grid(images, columns=3).images[0].get_array()
    assert shown.shape == (2 * 4 + 1, 3 * 6 + 2)
    assert np.allclose(shown[5:9, 7:13], (images[4, 0] + 1) / 2)
    assert np.ma.getmaskarray(shown)[5:9, 14:].all()  # the sixth place is empty


def test_colour_stays_colour():
    images = np.zeros((2, 3, 4, 4))
    images[0, 0] = 1
    shown = plotting.image_grid(images).images[0].get_array()
    assert np.allclose(shown[0, 0], [1, 0.5, 0.5, 1])


def test_titles_stand_above_their_images():
    ax = plotting.image_grid(np.zeros((3, 1, 8, 8)), titles=["a", "b", "c"])
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]


@pytest.mark.parametrize("shape", [(8, 8), (3, 2, 8, 8)])
def test_another_shape_is_named(shape):
    with pytest.raises(ValueError, match="needed"):
        plotting.image_grid(np.zeros(shape))


def test_titles_that_do_not_match_are_counted():
    with pytest.raises(ValueError, match="2 titles for 3 images"):
        plotting.image_grid(np.zeros((3, 1, 8, 8)), titles=["a", "b"])


def test_several_runs_are_drawn_thinly_with_their_mean():
    ax = plotting.accuracy_curves({"one": [0.1, 0.2], "many": [[0.1, 0.3], [0.3, 0.5]]})
    means = {line.get_label(): line.get_ydata() for line in ax.lines if not line.get_label().startswith("_")}
    assert np.allclose(means["many"], [0.2, 0.4]) and np.allclose(means["one"], [0.1, 0.2])
    assert len(ax.lines) == 4
