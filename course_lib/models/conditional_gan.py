"""A conditional GAN: both networks of `course_lib.models.dcgan`, told what to draw.

A condition is a class, or several attributes, each a whole number: the digit,
whether it is bold, whether it is slanted. A network learns a vector for each value
of each attribute; the vector of a condition is the sum of its attributes' vectors.
So a combination that was never seen has a vector, too.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.errors import InputError
from course_lib.models import dcgan
from course_lib.models.dcgan import DCGAN_STD

CONDITIONINGS = ("embedding", "projection")


class Embedding(nn.Module):
    """Turn conditions into vectors: the sum of one learnt vector per attribute.

    Args:
        attributes: how many values each attribute has: (10,) for a digit alone,
            (10, 2, 2) for a digit that may be bold and may be slanted.
        size: length of a vector.
        std: standard deviation of the numbers that it begins with.

    Raises:
        InputError: there is no attribute, or a size is below 1; in `forward`: the
            conditions have another number of attributes, or a value that is none.
    """

    def __init__(
        self, attributes: Sequence[int], size: int, *, std: float = 1.0
    ) -> None:
        super().__init__()
        if not attributes or min(attributes) < 1 or size < 1:
            raise InputError(
                f"attributes={tuple(attributes)} and size={size} make no embedding: "
                "give at least one attribute, and use at least 1"
            )
        self.attributes = tuple(attributes)
        self.vectors = nn.ModuleList(nn.Embedding(n, size) for n in attributes)
        for table in self.vectors:
            nn.init.normal_(table.weight, std=std)

    def forward(
        self, condition: Int[Tensor, "batch *attributes"]
    ) -> Float[Tensor, "batch size"]:
        columns = condition.reshape(len(condition), -1).T  # one row per attribute
        if len(columns) != len(self.attributes):
            raise InputError(
                f"found conditions of {len(columns)} attributes: this network knows "
                f"{len(self.attributes)}, with {self.attributes} values"
            )
        pairs = zip(self.vectors, columns, strict=True)
        return torch.stack([table(values) for table, values in pairs]).sum(dim=0)


class Generator(nn.Module):
    """Turn latent vectors and conditions into images with pixels in [-1, 1].

    The vector of the condition stands beside the latent vector; DCGAN's generator
    does the rest.

    Args:
        attributes: as for `Embedding`.
        embedding_dim: numbers in the vector of a condition.
        side_px, width: as for `dcgan.Generator`.

    Raises:
        InputError: as for `Embedding` and `dcgan.Generator`.

    Source: Mirza and Osindero (2014), section 3.2, with a learnt vector in place of
    their one-hot one.
    """

    def __init__(
        self,
        *,
        channels: int,
        side_px: int,
        attributes: Sequence[int],
        latent_dim: int = 100,
        embedding_dim: int = 16,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.embedding = Embedding(attributes, embedding_dim)
        self.network = dcgan.Generator(
            channels=channels,
            side_px=side_px,
            latent_dim=latent_dim + embedding_dim,
            width=width,
        )

    def forward(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        condition: Int[Tensor, "batch *attributes"],
    ) -> Float[Tensor, "batch channels side side"]:
        return self.network(torch.cat([latent, self.embedding(condition)], dim=1))


class EmbeddingDiscriminator(nn.Module):
    """Turn images and conditions into logits of "real and as asked for".

    The vector of the condition has one number per pixel. It stands beside the image
    as one channel more, and DCGAN's discriminator does the rest.

    Args:
        attributes: as for `Embedding`.
        side_px, width, batch_norm: as for `dcgan.Discriminator`.

    Raises:
        InputError: as for `Embedding` and `dcgan.Discriminator`.

    Source: Mirza and Osindero (2014), section 3.2; the channel is common practice.
    """

    def __init__(
        self,
        *,
        channels: int,
        side_px: int,
        attributes: Sequence[int],
        width: int = 64,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(attributes, side_px**2)
        self.network = dcgan.Discriminator(
            channels=channels + 1,
            side_px=side_px,
            width=width,
            batch_norm=batch_norm,
        )

    def forward(
        self,
        images: Float[Tensor, "batch channels side side"],
        condition: Int[Tensor, "batch *attributes"],
    ) -> Float[Tensor, " batch"]:
        channel = self.embedding(condition).view(-1, 1, *images.shape[2:])
        return self.network(torch.cat([images, channel], dim=1))


class ProjectionDiscriminator(nn.Module):
    """Turn images and conditions into logits of "real and as asked for".

    The logit has two parts, both from the features that DCGAN's discriminator finds
    before its last layer:

        last layer(features) + <vector of the condition, features>.

    The first asks whether the image is real, the second whether it is as asked for.

    Args:
        attributes, side_px, width, batch_norm: as for `EmbeddingDiscriminator`.

    Raises:
        InputError: as for `Embedding` and `dcgan.Discriminator`.

    Source: Miyato and Koyama (2018), cGANs with projection discriminator, section 3.
    They add up the features over all places of the maps; ours stay apart, as they
    do for DCGAN's last layer.
    """

    def __init__(
        self,
        *,
        channels: int,
        side_px: int,
        attributes: Sequence[int],
        width: int = 64,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.network = dcgan.Discriminator(
            channels=channels, side_px=side_px, width=width, batch_norm=batch_norm
        )
        features = self.network.layers[-1].in_features
        self.embedding = Embedding(attributes, features, std=DCGAN_STD)

    def forward(
        self,
        images: Float[Tensor, "batch channels side side"],
        condition: Int[Tensor, "batch *attributes"],
    ) -> Float[Tensor, " batch"]:
        features = self.network.layers[:-1](images)  # (batch, features)
        of_image = self.network.layers[-1](features).squeeze(1)
        return of_image + (self.embedding(condition) * features).sum(dim=1)
