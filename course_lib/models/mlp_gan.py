"""A GAN for points in the plane: two dense networks, with or without classes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

from course_lib.errors import InputError
from course_lib.models.blocks import LEAK, Dropout


class Generator(nn.Module):
    """Turn latent vectors into points in the plane.

    Dense layers with ReLU between them. The last layer has no activation: a point
    may lie anywhere, unlike a pixel.

    Args:
        width: outputs of each hidden layer.
        depth: number of hidden layers.
        classes: with a number, each point is made for a class: its label stands as a
            one-hot vector beside the latent vector (Mirza and Osindero, 2014).

    Raises:
        InputError: a size is below 1; in `forward`: labels are given to a network
            without classes, or missing where it has some.

    Source: the plan of `gan_toy.py`, the authors' code of Gulrajani et al. (2017).
    It has 3 hidden layers of 512 and He's initialisation. Ours are smaller, to train
    fast on a processor, and start as PyTorch's layers do.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        width: int = 128,
        depth: int = 2,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(
            latent_dim=latent_dim, width=width, depth=depth, classes=classes
        )
        self.latent_dim, self.classes = latent_dim, classes
        inputs = latent_dim + (classes or 0)
        self.layers = _dense_layers(inputs, width, depth, outputs=2, slope=0.0)

    def forward(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch 2"]:
        return self.layers(_beside_labels(latent, labels, self.classes))


class Discriminator(nn.Module):
    """Turn points in the plane into logits of "real".

    Dense layers with leaky ReLU between them. There is no batch normalisation: what
    the network says about a point does not depend on the points beside it, as
    gradient penalties need it. Without a sigmoid the logits also serve as a critic's
    scores.

    Args:
        width, depth, classes: as for the generator. With classes, the network judges
            whether a point is a real one of the class it is shown with.
        dropout: share of each hidden layer's outputs set to 0 while training.

    Raises:
        InputError: as for the generator, or `dropout` is below 0, or 1 or more.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 2,
        classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_sizes(width=width, depth=depth, classes=classes)
        self.classes = classes
        inputs = 2 + (classes or 0)
        layers = _dense_layers(inputs, width, depth, outputs=1, slope=LEAK)
        if dropout:
            for place in range(2 * depth, 0, -2):  # behind each activation
                layers.insert(place, Dropout(dropout))
        self.layers = layers

    def forward(
        self,
        points: Float[Tensor, "batch 2"],
        labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch"]:
        logits = self.layers(_beside_labels(points, labels, self.classes))
        return logits.squeeze(1)  # (batch, 1) -> (batch,)


def _dense_layers(
    inputs: int, width: int, depth: int, *, outputs: int, slope: float
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in [inputs, *[width] * (depth - 1)]:
        layers += [nn.Linear(size, width), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _beside_labels(
    x: Float[Tensor, "batch inputs"],
    labels: Int[Tensor, " batch"] | None,
    classes: int | None,
) -> Float[Tensor, "batch inputs_and_classes"]:
    if classes is None and labels is None:
        return x
    if classes is None:
        raise InputError(
            "found labels for a network without classes: leave them out"
        )
    if labels is None:
        raise InputError(f"found no labels for {classes} classes: give one per row")
    return torch.cat([x, one_hot(labels, classes).to(x.dtype)], dim=1)


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise InputError(f"{name}={size} makes no network: use at least 1")
