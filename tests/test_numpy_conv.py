import ast
import inspect

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from course_lib import numpy_conv
from course_lib.errors import InputError
from course_lib.numpy_conv import (
    col2im,
    conv2d,
    conv2d_backward,
    conv2d_backward_loops,
    conv2d_loops,
    conv_transpose2d,
    conv_transpose2d_loops,
    im2col,
    output_size,
    transposed_output_size,
)

TOLERANCE = 1e-10
many = settings(max_examples=80, deadline=None)


def close(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    return ours.dtype == np.float64 and ours.shape == theirs.shape and np.abs(ours - theirs).max(initial=0) <= TOLERANCE


@st.composite
def convolutions(draw):
    """An image batch, weights, a bias and settings with which at least one window fits."""
    n, channels, out_channels = (draw(st.integers(1, 3)) for _ in range(3))
    height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    kernel_height, kernel_width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    stride, padding, dilation = draw(st.integers(1, 3)), draw(st.integers(0, 3)), draw(st.integers(1, 3))
    assume(dilation * (kernel_height - 1) + 1 <= height + 2 * padding)
    assume(dilation * (kernel_width - 1) + 1 <= width + 2 * padding)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = random.normal(size=(n, channels, height, width))
    weight = random.normal(size=(out_channels, channels, kernel_height, kernel_width))
    return x, weight, random.normal(size=out_channels), {"stride": stride, "padding": padding, "dilation": dilation}


@st.composite
def transposed_convolutions(draw):
    n, channels, out_channels = (draw(st.integers(1, 3)) for _ in range(3))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    kernel_height, kernel_width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    output_padding = draw(st.integers(0, stride - 1))
    for size, kernel in ((height, kernel_height), (width, kernel_width)):
        assume((size - 1) * stride + kernel + output_padding - 2 * padding >= 1)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = random.normal(size=(n, channels, height, width))
    weight = random.normal(size=(channels, out_channels, kernel_height, kernel_width))
    bias = random.normal(size=out_channels)
    return x, weight, bias, {"stride": stride, "padding": padding, "output_padding": output_padding}


# ── Equal to torch ────────────────────────────────────────────────────────────────────────────────────────────────


@many
@given(convolutions())
def test_convolution_equals_torchs(case):
    x, weight, bias, how = case
    assert close(
        conv2d(x, weight, bias, **how),
        functional.conv2d(*(torch.from_numpy(part) for part in (x, weight, bias)), **how),
    )


@many
@given(convolutions(), st.integers(0, 2**32 - 1))
def test_all_three_gradients_equal_torchs(case, seed):
    x, weight, bias, how = case
    leaves = [torch.from_numpy(part).requires_grad_() for part in (x, weight, bias)]
    output = functional.conv2d(*leaves, **how)
    grad_output = np.random.default_rng(seed).normal(size=tuple(output.shape))
    output.backward(torch.from_numpy(grad_output))
    for ours, leaf in zip(conv2d_backward(grad_output, x, weight, **how), leaves, strict=True):
        assert close(ours, leaf.grad)


@many
@given(transposed_convolutions())
def test_transposed_convolution_equals_torchs(case):
    x, weight, bias, how = case
    theirs = functional.conv_transpose2d(*(torch.from_numpy(part) for part in (x, weight, bias)), **how)
    assert close(conv_transpose2d(x, weight, bias, **how), theirs)


@settings(max_examples=15, deadline=None)
@given(convolutions())
def test_the_loops_give_the_same_as_the_fast_version(case):
    x, weight, bias, how = case
    a = conv2d(x, weight, bias, **how)
    assert close(conv2d_loops(x, weight, bias, **how), a)
    slow, fast = conv2d_backward_loops(a, x, weight, **how), conv2d_backward(a, x, weight, **how)
    assert all(close(one, other) for one, other in zip(slow, fast, strict=True))


@settings(max_examples=15, deadline=None)
@given(transposed_convolutions())
def test_the_stamping_loops_give_the_same_as_the_fast_version(case):
    x, weight, bias, how = case
    assert close(conv_transpose2d_loops(x, weight, bias, **how), conv_transpose2d(x, weight, bias, **how))


@many
@given(convolutions())
def test_im2col_equals_torchs_unfold(case):
    x, weight, _, how = case
    assert close(im2col(x, weight.shape[2:], **how), functional.unfold(torch.from_numpy(x), weight.shape[2:], **how))


# ── Identities ────────────────────────────────────────────────────────────────────────────────────────────────────


@many
@given(convolutions())
def test_transposed_convolution_is_the_adjoint_of_convolution(case):
    x, weight, _, how = case
    how = {"stride": how["stride"], "padding": how["padding"]}
    assume(all(k <= size + 2 * how["padding"] for k, size in zip(weight.shape[2:], x.shape[2:], strict=True)))
    a = conv2d(x, weight, **how)
    # The rows at the far end that no window reached; ours takes one number for both directions.
    lost = {
        (size + 2 * how["padding"] - k) % how["stride"] for size, k in zip(x.shape[2:], weight.shape[2:], strict=True)
    }
    assume(len(lost) == 1)
    y = np.random.default_rng(0).normal(size=a.shape)
    back = conv_transpose2d(y, weight, output_padding=lost.pop(), **how)
    assert back.shape == x.shape
    assert abs((a * y).sum() - (x * back).sum()) <= TOLERANCE


@many
@given(convolutions())
def test_the_gradient_of_the_image_is_the_transposed_convolution(case):
    x, weight, _, how = case
    a = conv2d(x, weight, **how)
    grad_x, _, _ = conv2d_backward(a, x, weight, **how)
    assert abs((a * a).sum() - (x * grad_x).sum()) <= TOLERANCE * max(1, (a * a).sum())


@many
@given(convolutions())
def test_col2im_is_the_adjoint_of_im2col(case):
    x, weight, _, how = case
    columns = im2col(x, weight.shape[2:], **how)
    other = np.random.default_rng(0).normal(size=columns.shape)
    assert abs((columns * other).sum() - (x * col2im(other, x.shape, weight.shape[2:], **how)).sum()) <= TOLERANCE


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 5), st.integers(0, 5), st.integers(1, 4))
def test_output_size_counts_the_places_where_the_kernel_fits(size, kernel, stride, padding, dilation):
    starts = range(0, size + 2 * padding, stride)
    places = sum(start + dilation * (kernel - 1) < size + 2 * padding for start in starts)
    if places:
        assert output_size(size, kernel, stride=stride, padding=padding, dilation=dilation) == places
    else:
        with pytest.raises(InputError, match="spans .* pixels, but the padded picture has"):
            output_size(size, kernel, stride=stride, padding=padding, dilation=dilation)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 5), st.integers(0, 5), st.integers(0, 4))
def test_a_convolution_undoes_what_its_transpose_does_to_the_size(size, kernel, stride, padding, output_padding):
    assume(output_padding < stride)
    assume((size - 1) * stride + kernel + output_padding - 2 * padding >= 1)
    made = transposed_output_size(size, kernel, stride=stride, padding=padding, output_padding=output_padding)
    assert output_size(made, kernel, stride=stride, padding=padding) == size


def test_the_padding_that_the_error_asks_for_is_enough_and_no_smaller_one_is():
    with pytest.raises(InputError, match="padding of at least 3"):
        output_size(4, 10, padding=2)
    assert output_size(4, 10, padding=3) == 1


# ── What cannot be ────────────────────────────────────────────────────────────────────────────────────────────────

X, W, T = np.zeros((2, 3, 5, 5)), np.zeros((4, 3, 3, 3)), np.zeros((3, 4, 3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f(X[0], W), r"found x of shape \(3, 5, 5\): needed \(n, channels, height, width\)"),
        (lambda f: f(X, W[0]), r"found weight of shape \(3, 3, 3\): needed four axes"),
        (lambda f: f(X[:, :2], W), r"x has 2 channels, but weight of shape \(4, 3, 3, 3\) takes 3"),
        (lambda f: f(X, W, np.zeros(3)), r"found bias of shape \(3,\): needed \(4,\)"),
        (lambda f: f(X, W, stride=0), "stride=0 is too small: use at least 1"),
        (lambda f: f(X, W, padding=-1), "padding=-1 is too small: use at least 0"),
        (lambda f: f(X, W, dilation=0), "dilation=0 is too small: use at least 1"),
        (lambda f: f(X, W, dilation=3), "spans 7 pixels, but the padded picture has 5"),
        (lambda f: f(X[:, :, :0], W), "size=0 is too small"),
    ],
)
@pytest.mark.parametrize("convolve", [conv2d, conv2d_loops])
def test_a_convolution_that_cannot_be_is_refused(convolve, call, message):
    with pytest.raises(InputError, match=message):
        call(convolve)


def test_a_setting_that_is_no_whole_number_is_refused():
    # The wrapped function: in the tests a type check stands before it, which no reader's session has.
    with pytest.raises(InputError, match="stride=1.5 is not a whole number"):
        inspect.unwrap(numpy_conv._at_least)("stride", 1.5, 1)


@pytest.mark.parametrize("backward", [conv2d_backward, conv2d_backward_loops])
def test_a_gradient_of_another_shape_is_refused(backward):
    with pytest.raises(InputError, match=r"found grad_output of shape \(2, 4, 5, 5\): .* \(2, 4, 3, 3\)"):
        backward(np.zeros((2, 4, 5, 5)), X, W)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f(X, W), r"x has 3 channels, but weight of shape \(4, 3, 3, 3\) takes 4: weight must be \(in, out"),
        (lambda f: f(X, T, np.zeros(3)), r"found bias of shape \(3,\): needed \(4,\)"),
        (lambda f: f(X, T, stride=2, output_padding=2), "output_padding=2 must be below stride=2"),
        (lambda f: f(X[:, :, :1, :1], T, padding=2), "gives a side of -1: it must be at least 1"),
    ],
)
@pytest.mark.parametrize("convolve", [conv_transpose2d, conv_transpose2d_loops])
def test_a_transposed_convolution_that_cannot_be_is_refused(convolve, call, message):
    with pytest.raises(InputError, match=message):
        call(convolve)


def test_columns_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"found columns of shape \(2, 27, 8\): .* need \(2, 27, 9\)"):
        col2im(np.zeros((2, 27, 8)), X.shape, (3, 3))


def test_the_file_can_be_read_without_knowing_torch():
    tree = ast.parse(inspect.getsource(numpy_conv))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any("torch" in name for name in imported)
