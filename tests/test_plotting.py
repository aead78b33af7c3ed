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


def boxes(ax):
    return {text.get_text(): text.get_position() for text in ax.texts if text.get_text()}


def test_network_graph_puts_a_step_below_what_feeds_it_and_branches_side_by_side():
    labels = {name: name for name in ("input", "left", "right", "sum")}
    arrows = [("input", "left"), ("input", "right"), ("left", "sum"), ("right", "sum")]
    at = boxes(plotting.network_graph(labels, arrows, mark=["sum"]))
    assert at == {"input": (0, 0), "left": (0, 1), "right": (1, 1), "sum": (0, 2)}


def test_network_graph_leads_a_skip_round_the_steps_it_passes():
    labels = {name: name for name in ("input", "layer", "sum")}
    ax = plotting.network_graph(labels, [("input", "layer"), ("layer", "sum"), ("input", "sum")])
    (skip,) = ax.lines
    assert max(skip.get_xdata()) > 0.42  # beyond the right edge of the boxes


def test_network_graph_leads_a_skip_round_the_steps_below_it_also_on_its_way_to_the_left():
    labels = {name: name for name in ("input", "left", "right", "layer", "sum")}
    arrows = [("input", "left"), ("input", "right"), ("right", "layer"), ("left", "sum"), ("layer", "sum")]
    ax = plotting.network_graph(labels, [*arrows, ("right", "sum")])
    skip = ax.lines[-1]
    assert boxes(ax)["right"] == (1, 1) and boxes(ax)["layer"] == (1, 2)
    assert max(skip.get_xdata()) > 1.42  # beyond the right edge of the boxes


@pytest.mark.parametrize("arrow", [("a", "c"), ("b", "a"), ("a", "a")])
def test_network_graph_refuses_an_arrow_that_cannot_be(arrow):
    with pytest.raises(ValueError, match="both need a label, the first one earlier"):
        plotting.network_graph({"a": "a", "b": "b"}, [arrow])
