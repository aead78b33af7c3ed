import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

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


def test_points_keep_their_places_and_clouds_their_colours():
    real, fake = [[0.0, 1.0], [2.0, -1.0]], [[-2.5, 0.5]]
    ax = plotting.points({"real": real, "fake": fake}, limit=4)
    first, second = ax.collections
    assert np.allclose(first.get_offsets(), real) and np.allclose(second.get_offsets(), fake)
    assert np.allclose(first.get_facecolor(), to_rgba(plotting.COLOURS[0]))
    assert np.allclose(second.get_facecolor(), to_rgba(plotting.COLOURS[1]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["real", "fake"]
    assert (ax.get_xlim(), ax.get_ylim(), ax.get_aspect()) == ((-4, 4), (-4, 4), 1)


def test_a_lone_cloud_needs_no_legend():
    assert plotting.points({"real": [[0.0, 0.0]]}).get_legend() is None


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 3, 2)])
def test_a_cloud_of_another_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"'fake' of shape"):
        plotting.points({"real": np.zeros((3, 2)), "fake": np.zeros(shape)})


def test_lattice_goes_along_the_rows_from_the_lower_left():
    points = plotting.lattice(limit=2, side=3)
    assert points.dtype == np.float32
    assert points.tolist() == [[x, y] for y in (-2, 0, 2) for x in (-2, 0, 2)]


def test_field_shows_each_value_where_its_point_of_the_lattice_lies():
    rises_to_the_right = plotting.lattice(limit=2, side=5)[:, 0] / 4 + 0.5
    ax = plotting.field(rises_to_the_right, limit=2)
    image = ax.images[0]
    shown, (left, right, bottom, top) = image.get_array(), image.get_extent()
    assert np.allclose(shown, np.tile([0, 0.25, 0.5, 0.75, 1], (5, 1)))
    middles = left + (right - left) * (np.arange(5) + 0.5) / 5
    assert np.allclose(middles, [-2, -1, 0, 1, 2]) and (bottom, top) == (left, right)
    assert image.origin == "lower" and image.get_clim() == (0, 1)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 2), (-2, 2))


def test_points_lie_on_the_field_when_both_are_drawn_on_one_axes():
    ax = plotting.field(np.full(9, 0.5), limit=2)
    assert plotting.points({"fake": [[1.0, 1.0]]}, limit=2, ax=ax) is ax
    assert ax.collections[0].get_zorder() > ax.images[0].get_zorder()


def test_colours_of_the_field_are_white_where_nobody_knows_and_told_apart_at_the_ends():
    fake, unsure, real = plotting.REAL_OR_FAKE([0.0, 0.5, 1.0])[:, :3]
    assert np.allclose(unsure, 1, atol=0.01)
    assert fake[0] > fake[2] + 0.3 and real[2] > real[0] + 0.3  # orange has more red, blue more blue


@pytest.mark.parametrize("count", [0, 1, 8])
def test_values_that_fill_no_square_are_counted(count):
    with pytest.raises(ValueError, match=f"found {count} probabilities"):
        plotting.field(np.zeros(count))
