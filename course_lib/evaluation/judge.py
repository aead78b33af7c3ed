"""The judge: a frozen classifier that says what it sees in a picture, and by which
features. Generators are compared by it, so it was trained before any of them.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib import records
from course_lib.data import images as data_images
from course_lib.data.images import ImageForm, to_unit_range
from course_lib.errors import InputError
from course_lib.models.classifier import Classifier, ClassifierOutput

PREFIX = "classifier_"
BATCH = 1000
SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Judge:
    """A trained classifier, evaluating on the CPU.

    In training, its images were moved and turned a little and had weak noise on
    them, so it names pictures changed in this way as before. Their features move.

    Args:
        data_name: the pictures that it was trained on; it can judge no others.
        sha256: of the file with its weights: numbers by judges of other hashes
            cannot be compared.
    """

    data_name: str
    form: ImageForm
    sha256: str
    network: Classifier = field(repr=False)

    def features(
        self, images: Float[Tensor, "n channels side side"]
    ) -> Float[Tensor, "n features"]:
        """Return what the classifier bases its decision on, on a scale on which each
        feature of the real training images has mean 0 and variance 1.

        Args:
            images: pixels in [-1, 1].

        Raises:
            InputError: the images have another form than those it was trained on; or
                these, which give the scale, cannot be had.
        """
        mean, std = self._scale
        return (self._run(images).features - mean) / std

    def classes(
        self, images: Float[Tensor, "n channels side side"]
    ) -> Int[Tensor, " n"]:
        """Return the most likely class of each image, from 0.

        Raises:
            InputError: the images have another form than those it was trained on.
        """
        return self._run(images).logits.argmax(dim=1)

    def class_counts(
        self, images: Float[Tensor, "n channels side side"]
    ) -> Int[Tensor, " classes"]:
        """Count the images of each class: one that a generator has lost gets none.

        Raises:
            InputError: the images have another form than those it was trained on.
        """
        return torch.bincount(self.classes(images), minlength=self.form.classes)

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        real = to_unit_range(data_images.load(self.data_name).train_images)
        features = self._run(real).features.double()
        std = features.std(dim=0).clamp_min(SMALLEST_STD)
        return features.mean(dim=0).float(), std.float()

    @torch.inference_mode()
    def _run(self, images: Tensor) -> ClassifierOutput:
        channels, side_px, _ = self.form
        expected = (channels, side_px, side_px)
        if tuple(images.shape[1:]) != expected:
            raise InputError(
                f"found images of shape {tuple(images.shape[1:])}, and the judge of "
                f"{self.data_name} knows {expected}: give it such, or ask another"
            )
        outputs = [self.network(batch) for batch in images.cpu().split(BATCH)]
        return ClassifierOutput(
            *(torch.cat(parts).float() for parts in zip(*outputs, strict=True))
        )


def judge(data_name: str) -> Judge:
    """Load the judge of some data, such as "digits".

    Raises:
        InputError: the data have no judge, or its file is missing, damaged or not
            the one of its record.
    """
    folder = _folders().get(data_name)
    if folder is None:
        raise InputError(
            f"data {data_name!r} have no judge: use {', '.join(sorted(_folders()))}"
        )
    record = records.read(folder / records.FILE_NAME)
    form, settings = ImageForm(**record["images"]), record["identity"]["settings"]
    network = Classifier(
        **form._asdict(),
        noise_std=settings["noise_std"],
        dropout=settings["dropout"],
        width=settings["width"],
        features=settings["features"],
    )
    records.give_weights(network, record, folder, "classifier")
    network.eval().requires_grad_(False)
    return Judge(data_name, form, record["sha256"]["classifier"], network)


def _folders() -> dict[str, Path]:
    found = records.WEIGHTS.glob(f"{PREFIX}*/{records.FILE_NAME}")
    return {path.parent.name.removeprefix(PREFIX): path.parent for path in found}
