"""Residual networks, with a switch that takes their skip connections away."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from course_lib.errors import InputError
from course_lib.models.classifier import ClassifierOutput

Initialisation = Literal["he", "default"]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a skip connection around them: relu(x + layers(x)).

    Where the block changes the number of channels or the side, a 1 x 1 convolution
    on the skip makes x fit. Without skip connections the block is relu(layers(x)),
    and that convolution does not exist.

    Args:
        stride: of the first convolution; 2 halves the side.
        skip: whether x is added.
        batch_norm: whether each convolution, the one on the skip too, is followed by
            batch normalisation. Without it the convolutions have a bias instead.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        skip: bool = True,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *convolution(in_channels, channels, 3, stride, batch_norm=batch_norm),
            nn.ReLU(),
            *convolution(channels, channels, 3, 1, batch_norm=batch_norm),
        )
        if not skip:
            self.shortcut: nn.Module | None = None
        elif in_channels == channels and stride == 1:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                *convolution(in_channels, channels, 1, stride, batch_norm=batch_norm)
            )

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        out = self.layers(x)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return functional.relu(out)


class ResNet(nn.Module):
    """Turn images with pixels in [-1, 1] into class logits: a stem, stages of
    residual blocks, one mean per map.

    As it stands this is the network with 18 layers of He et al. (2016): a 7 x 7
    stem with stride 2 and a max pooling, which quarter the side; four stages of two
    blocks with 64, 128, 256 and 512 channels, each stage but the first halving the
    side; the mean over each map; one dense layer. For pictures of 8 to 32 pixels set
    `small_stem`, a 3 x 3 convolution that keeps the side.

    Args:
        blocks: the number of blocks of each stage. Each adds two layers.
        widths: the number of channels of each stage.
        skip: whether the blocks have skip connections.
        batch_norm: whether convolutions are followed by batch normalisation.
        initialisation: "he" draws the convolutions' weights from
            N(0, 2 / outputs per weight) as below; "default" keeps PyTorch's, whose
            variance is a sixth of what a ReLU needs.

    Raises:
        InputError: there is no stage, or `blocks` and `widths` differ in length, or
            a stage has no block.

    Source: He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image
    Recognition, table 1 and section 3.3. Where the shape changes we project with a
    1 x 1 convolution (their option B). Initialisation: He et al. (2015), Delving
    Deep into Rectifiers, equation 14, which keeps the variance of the gradients.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        small_stem: bool = False,
        skip: bool = True,
        batch_norm: bool = True,
        initialisation: Initialisation = "he",
    ) -> None:
        super().__init__()
        if not blocks or len(blocks) != len(widths) or min(blocks) < 1:
            raise InputError(
                f"blocks={tuple(blocks)} and widths={tuple(widths)} do not describe "
                "stages: give one positive number of blocks and one width for each"
            )
        if small_stem:
            self.stem = nn.Sequential(
                *convolution(channels, widths[0], 3, 1, batch_norm=batch_norm),
                nn.ReLU(),
            )
        else:
            self.stem = nn.Sequential(
                *convolution(channels, widths[0], 7, 2, batch_norm=batch_norm),
                nn.ReLU(),
                nn.MaxPool2d(3, stride=2, padding=1),
            )
        self.stages = nn.Sequential()
        settings = {"skip": skip, "batch_norm": batch_norm}
        in_channels = widths[0]
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = nn.Sequential()
            for block in range(count):
                stride = 2 if number > 0 and block == 0 else 1
                layers = ResidualBlock(in_channels, width, stride=stride, **settings)
                stage.append(layers)
                in_channels = width
            self.stages.append(stage)
        self.head = nn.Linear(widths[-1], classes)
        if initialisation == "he":
            self.apply(initialise_he)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> ClassifierOutput:
        maps = self.stages(self.stem(images))  # (batch, widths[-1], side, side)
        # Global average pooling: one number for each map.
        features = maps.mean(dim=(2, 3))  # (batch, widths[-1])
        return ClassifierOutput(self.head(features), features)

    @property
    def depth(self) -> int:
        """The number of layers with weights on the longest way.

        They are the stem, two for each block, and the head.
        """
        return 2 + 2 * sum(len(stage) for stage in self.stages)


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int,
    *,
    batch_norm: bool,
) -> list[nn.Module]:
    """Return a convolution that keeps ceil(side / stride), and the batch
    normalisation that follows it, if any.
    """
    padding, bias = kernel // 2, not batch_norm
    layer = nn.Conv2d(
        in_channels, out_channels, kernel, stride, padding=padding, bias=bias
    )
    return [layer, nn.BatchNorm2d(out_channels)] if batch_norm else [layer]


def initialise_he(layer: nn.Module) -> None:
    """Draw a convolution's weights from N(0, 2 / (out channels * kernel area)).

    Its bias is set to 0.
    """
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
