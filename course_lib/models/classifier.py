"""A small convolutional classifier: the supervised baseline and, unchanged, the
semi-supervised GAN's discriminator.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from course_lib.errors import InputError
from course_lib.models.blocks import LEAK, Dropout, GaussianNoise, weight_normalised


class ClassifierOutput(NamedTuple):
    """What the classifier says about each image, and its reasons: the features."""

    logits: Float[Tensor, "batch classes"]
    features: Float[Tensor, "batch features"]


class Classifier(nn.Module):
    """Turn images with pixels in [-1, 1] into class logits.

    Three convolutions, each but the first on small pictures halving the side, then a
    dense layer of features and one logit per class. Noise on the input, dropout
    between the layers and weight normalisation keep the network from learning a
    handful of labelled images by heart. It holds no batch statistics: what it says
    about an image does not depend on the images beside it, so labelled, unlabelled
    and generated ones may share a batch.

    Args:
        side_px: side of the square images, at least 8.
        noise_std: standard deviation of the noise on the input, in pixel units of
            [-1, 1].
        dropout: probability of dropping a number after the second and third
            convolution; half of it after the first.
        width: channels of the first convolution; the second has twice, the third
            four times as many.
        features: outputs of the dense layer.
    """

    def __init__(
        self,
        *,
        channels: int,
        side_px: int,
        classes: int,
        noise_std: float,
        dropout: float,
        width: int = 32,
        features: int = 256,
    ) -> None:
        super().__init__()
        if side_px < 8:
            raise InputError(
                f"side_px={side_px} is too small for three convolutions: "
                "use at least 8"
            )
        small = side_px < 16  # a stride of 2 would throw away most of an 8 x 8 digit
        kernel, stride = (3, 1) if small else (5, 2)
        side = side_px
        for step in (stride, 2, 2):
            side = -(-side // step)  # padding keeps ceil(side / stride)
        self.layers = nn.Sequential(
            GaussianNoise(noise_std),
            weight_normalised(
                nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2)
            ),
            nn.LeakyReLU(LEAK),
            Dropout(dropout / 2),
            weight_normalised(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)),
            nn.LeakyReLU(LEAK),
            Dropout(dropout),
            weight_normalised(
                nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
            ),
            nn.LeakyReLU(LEAK),
            nn.Flatten(),
            Dropout(dropout),
            weight_normalised(nn.Linear(4 * width * side * side, features)),
            nn.LeakyReLU(LEAK),
        )
        self.head = weight_normalised(nn.Linear(features, classes))

    def forward(
        self, images: Float[Tensor, "batch channels side side"]
    ) -> ClassifierOutput:
        features = self.layers(images)  # (batch, features)
        return ClassifierOutput(self.head(features), features)
