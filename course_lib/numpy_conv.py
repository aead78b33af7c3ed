"""Convolution, its gradients and the transposed convolution, written to be read.

Everything here computes in float64 and gives the numbers that torch gives. Each
operation comes twice: once as plain loops, which say what is meant, and once through
`im2col`, which is what makes it fast. Images are (n, channels, height, width);
weights of a convolution are (out, in, kernel height, kernel width), those of a
transposed one (in, out, kernel height, kernel width). Stride, padding and dilation
are the same in both directions.
"""

import operator

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from course_lib.errors import InputError


def output_size(
    size: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> int:
    """Return along one side how many places a kernel can stand at.

    A dilated kernel spans dilation * (kernel - 1) + 1 pixels. It stands at the first
    pixel of the padded side and at every stride-th pixel after that, as long as it
    fits.

    Raises:
        InputError: the kernel fits nowhere, or a setting makes no sense.
    """
    size = _at_least("size", size, 1)
    kernel = _at_least("kernel", kernel, 1)
    stride = _at_least("stride", stride, 1)
    padding = _at_least("padding", padding, 0)
    span = _at_least("dilation", dilation, 1) * (kernel - 1) + 1
    padded = size + 2 * padding
    if span > padded:
        raise InputError(
            f"a kernel of {kernel} with dilation {dilation} spans {span} pixels, "
            f"but the padded picture has {padded}: use a smaller kernel or dilation "
            f"or a padding of at least {-(-(span - size) // 2)}"
        )
    return (padded - span) // stride + 1


def transposed_output_size(
    size: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
) -> int:
    """Return which side a transposed convolution makes of one of `size` pixels.

    A convolution with stride s maps s different sizes to the same one;
    `output_padding` says which of them is meant.

    Raises:
        InputError: nothing would be left, `output_padding` is not below the stride,
            or a setting makes no sense.
    """
    size = _at_least("size", size, 1)
    kernel = _at_least("kernel", kernel, 1)
    stride = _at_least("stride", stride, 1)
    padding = _at_least("padding", padding, 0)
    if _at_least("output_padding", output_padding, 0) >= stride:
        raise InputError(
            f"output_padding={output_padding} must be below stride={stride}: "
            "it chooses among the sizes that the stride makes equal"
        )
    made = (size - 1) * stride + kernel + output_padding - 2 * padding
    if made < 1:
        raise InputError(
            f"a side of {size} with kernel {kernel}, stride {stride} and padding "
            f"{padding} gives a side of {made}: it must be at least 1, so use less "
            "padding"
        )
    return made


# ── Plain loops: what is meant ─────────────────────────────────────────────────────


def conv2d_loops(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Float64[np.ndarray, "n out_channels out_height out_width"]:
    """Convolve as `conv2d` does, one multiplication after the other."""
    x, weight, bias = _checked(x, weight, bias, in_axis=1)
    n, channels, height, width = x.shape
    out_channels, _, kernel_height, kernel_width = weight.shape
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    out_height = output_size(height, kernel_height, **settings)
    out_width = output_size(width, kernel_width, **settings)
    x = _pad(x, padding)
    a = np.zeros((n, out_channels, out_height, out_width))
    for image, k, i, j in np.ndindex(a.shape):
        total = bias[k]
        for c in range(channels):
            for s in range(kernel_height):
                row = i * stride + s * dilation
                for t in range(kernel_width):
                    column = j * stride + t * dilation
                    total += weight[k, c, s, t] * x[image, c, row, column]
        a[image, k, i, j] = total
    return a


def conv2d_backward_loops(
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients that `conv2d_backward` returns.

    Each product of the forward pass is followed backwards.
    """
    x, weight, _ = _checked(x, weight, None, in_axis=1)
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    grad_output = _checked_gradient(grad_output, x, weight, settings)
    padded = _pad(x, padding)
    grad_padded, grad_weight = np.zeros_like(padded), np.zeros_like(weight)
    grad_bias = np.zeros(len(weight))
    for image, k, i, j in np.ndindex(grad_output.shape):
        error = grad_output[image, k, i, j]
        grad_bias[k] += error
        for c, s, t in np.ndindex(weight.shape[1:]):
            row, column = i * stride + s * dilation, j * stride + t * dilation
            grad_weight[k, c, s, t] += error * padded[image, c, row, column]
            grad_padded[image, c, row, column] += error * weight[k, c, s, t]
    return _crop(grad_padded, padding), grad_weight, grad_bias


def conv_transpose2d_loops(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
) -> Float64[np.ndarray, "n out_channels out_height out_width"]:
    """Convolve transposed as `conv_transpose2d` does.

    Every number of x stamps the kernel, scaled by it, onto a canvas.
    """
    x, weight, bias = _checked(x, weight, bias, in_axis=0)
    height, width = _transposed_sizes(x, weight, stride, padding, output_padding)
    size = (height + 2 * padding, width + 2 * padding)
    canvas = np.zeros((len(x), weight.shape[1], *size))
    for image, c, i, j in np.ndindex(x.shape):
        for k, s, t in np.ndindex(weight.shape[1:]):
            row, column = i * stride + s, j * stride + t
            canvas[image, k, row, column] += x[image, c, i, j] * weight[c, k, s, t]
    return _crop(canvas, padding) + bias[:, None, None]


# ── The same through im2col: what is fast ──────────────────────────────────────────


def im2col(
    x: ArrayLike,
    kernel_size: tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Float64[np.ndarray, "n window places"]:
    """Lay every window that the kernel sees out as one column.

    Returns:
        (n, channels * kernel height * kernel width, out height * out width), in the
        order of torch's `unfold`.

    Raises:
        InputError: the kernel fits nowhere, or a setting makes no sense.
    """
    x = _four_axes("x", x)
    n, channels, height, width = x.shape
    kernel_height, kernel_width = kernel_size
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    out_height = output_size(height, kernel_height, **settings)
    out_width = output_size(width, kernel_width, **settings)
    x = _pad(x, padding)
    columns = np.empty((n, channels, *kernel_size, out_height, out_width))
    for s in range(kernel_height):
        for t in range(kernel_width):
            rows = slice(s * dilation, s * dilation + stride * out_height, stride)
            across = slice(t * dilation, t * dilation + stride * out_width, stride)
            # One number of every window at once.
            columns[:, :, s, t] = x[:, :, rows, across]
    window = channels * kernel_height * kernel_width
    return columns.reshape(n, window, out_height * out_width)


def col2im(
    columns: ArrayLike,
    shape: tuple[int, int, int, int],
    kernel_size: tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Float64[np.ndarray, "n channels height width"]:
    """Put every column back where `im2col` took it from, and add where they overlap.

    This is the adjoint of `im2col`, not its inverse: a pixel seen by three windows
    comes back three times.

    Args:
        shape: that of the images, (n, channels, height, width).
    """
    n, channels, height, width = shape
    kernel_height, kernel_width = kernel_size
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    out_height = output_size(height, kernel_height, **settings)
    out_width = output_size(width, kernel_width, **settings)
    expected = (n, channels * kernel_height * kernel_width, out_height * out_width)
    columns = np.asarray(columns, dtype=np.float64)
    if columns.shape != expected:
        needed = f"images of shape {tuple(shape)} need {expected}"
        raise InputError(f"found columns of shape {columns.shape}: {needed}")
    columns = columns.reshape(n, channels, *kernel_size, out_height, out_width)
    images = np.zeros((n, channels, height + 2 * padding, width + 2 * padding))
    for s in range(kernel_height):
        for t in range(kernel_width):
            rows = slice(s * dilation, s * dilation + stride * out_height, stride)
            across = slice(t * dilation, t * dilation + stride * out_width, stride)
            images[:, :, rows, across] += columns[:, :, s, t]
    return _crop(images, padding)


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Float64[np.ndarray, "n out_channels out_height out_width"]:
    """Convolve as deep learning does: cross-correlate, with the kernel not flipped.

    a[k, i, j] = bias[k] + the sum over c, s, t of
    weight[k, c, s, t] * x[c, i * stride + s * dilation, ...],
    on x with a border of `padding` zeros.

    Args:
        x: (n, in, height, width).
        weight: (out, in, kernel height, kernel width).
        bias: (out,); zeros where it is not given.

    Raises:
        InputError: the shapes do not fit together, the kernel fits nowhere, or a
            setting makes no sense.
    """
    x, weight, bias = _checked(x, weight, bias, in_axis=1)
    out_channels, _, kernel_height, kernel_width = weight.shape
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    columns = im2col(x, weight.shape[2:], **settings)  # (n, in*kh*kw, places)
    a = weight.reshape(out_channels, -1) @ columns  # (n, out, places)
    a += bias[:, None]
    return a.reshape(
        len(x),
        out_channels,
        output_size(x.shape[2], kernel_height, **settings),
        output_size(x.shape[3], kernel_width, **settings),
    )


def conv2d_backward(
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of a loss with respect to x, weight and bias of `conv2d`.

    Args:
        grad_output: the gradient with respect to what `conv2d(x, weight, ...)`
            returned, and of that shape.

    Returns:
        (grad_x, grad_weight, grad_bias), shaped as x, weight and (out,); summed over
        the batch, as torch does.

    Raises:
        InputError: as for `conv2d`, or `grad_output` has another shape than the
            output.
    """
    x, weight, _ = _checked(x, weight, None, in_axis=1)
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    grad_output = _checked_gradient(grad_output, x, weight, settings)
    errors = grad_output.reshape(len(x), len(weight), -1)  # (n, out, places)
    columns = im2col(x, weight.shape[2:], **settings)  # (n, in*kh*kw, places)
    grad_weight = (errors @ columns.transpose(0, 2, 1)).sum(axis=0)
    flat_weight = weight.reshape(len(weight), -1)  # (out, in*kh*kw)
    grad_columns = flat_weight.T @ errors  # (n, in*kh*kw, places)
    grad_x = col2im(grad_columns, x.shape, weight.shape[2:], **settings)
    return grad_x, grad_weight.reshape(weight.shape), errors.sum(axis=(0, 2))


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
) -> Float64[np.ndarray, "n out_channels out_height out_width"]:
    """Convolve transposed.

    This is the adjoint of `conv2d` with the same weight, stride and padding, plus a
    bias.

    Args:
        x: (n, in, height, width).
        weight: (in, out, kernel height, kernel width); for the convolution that it
            is the adjoint of, (out, in, ...).
        bias: (out,); zeros where it is not given.
        output_padding: rows and columns added at the far end, fewer than the stride.

    Raises:
        InputError: the shapes do not fit together, nothing would be left, or a
            setting makes no sense.

    Source: Dumoulin and Visin (2016), A guide to convolution arithmetic for deep
    learning, chapter 4.
    """
    x, weight, bias = _checked(x, weight, bias, in_axis=0)
    in_channels, out_channels = weight.shape[:2]
    kernel_size = weight.shape[2:]
    sizes = _transposed_sizes(x, weight, stride, padding, output_padding)
    pixels = x.reshape(len(x), in_channels, -1)  # (n, in, places)
    columns = weight.reshape(in_channels, -1).T @ pixels  # (n, out*kh*kw, places)
    shape = (len(x), out_channels, *sizes)
    stamped = col2im(columns, shape, kernel_size, stride=stride, padding=padding)
    return stamped + bias[:, None, None]


# ── Checks and borders ─────────────────────────────────────────────────────────────


def _at_least(name: str, value: int, smallest: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        hint = f"use an integer of at least {smallest}"
        raise InputError(f"{name}={value!r} is not a whole number: {hint}") from None
    if number < smallest:
        raise InputError(f"{name}={number} is too small: use at least {smallest}")
    return number


def _four_axes(name: str, array: ArrayLike) -> np.ndarray:
    array = np.asarray(array, dtype=np.float64)
    if array.ndim != 4:
        needed = "four axes, as (out, in, height, width)"
        if name == "x":
            needed = "(n, channels, height, width)"
        raise InputError(f"found {name} of shape {array.shape}: needed {needed}")
    return array


def _checked(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, *, in_axis: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the three as float64 arrays that fit together.

    `in_axis` is the axis of weight that meets x's channels.
    """
    x, weight = _four_axes("x", x), _four_axes("weight", weight)
    if x.shape[1] != weight.shape[in_axis]:
        axes = "out, in" if in_axis == 1 else "in, out"
        raise InputError(
            f"x has {x.shape[1]} channels, but weight of shape {weight.shape} takes "
            f"{weight.shape[in_axis]}: weight must be ({axes}, height, width) "
            f"with in={x.shape[1]}"
        )
    out_channels = weight.shape[1 - in_axis]
    bias = np.asarray(np.zeros(out_channels) if bias is None else bias, np.float64)
    if bias.shape != (out_channels,):
        needed = f"({out_channels},), one number per output channel"
        raise InputError(f"found bias of shape {bias.shape}: needed {needed}")
    return x, weight, bias


def _checked_gradient(
    grad_output: ArrayLike,
    x: np.ndarray,
    weight: np.ndarray,
    settings: dict[str, int],
) -> np.ndarray:
    grad_output = np.asarray(grad_output, dtype=np.float64)
    sizes = zip(x.shape[2:], weight.shape[2:], strict=True)
    sides = (output_size(size, kernel, **settings) for size, kernel in sizes)
    expected = (len(x), len(weight), *sides)
    if grad_output.shape != expected:
        needed = f"the output of conv2d has shape {expected}"
        raise InputError(f"found grad_output of shape {grad_output.shape}: {needed}")
    return grad_output


def _transposed_sizes(
    x: np.ndarray, weight: np.ndarray, stride: int, padding: int, output_padding: int
) -> tuple[int, int]:
    settings = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
    }
    sizes = zip(x.shape[2:], weight.shape[2:], strict=True)
    height, width = (transposed_output_size(*both, **settings) for both in sizes)
    return height, width


def _pad(x: np.ndarray, padding: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def _crop(x: np.ndarray, padding: int) -> np.ndarray:
    return x[:, :, padding : x.shape[2] - padding, padding : x.shape[3] - padding]
