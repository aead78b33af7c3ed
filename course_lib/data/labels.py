"""Hide most labels: the semi-supervised setting."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from course_lib.errors import InputError


def choose_labelled(labels: Int[Tensor, " n"], count: int, *, classes: int, seed: int) -> Bool[Tensor, " n"]:
    """Choose which images keep their label: a balanced few.

    Args:
        labels: the class of every training image, 0 to `classes` - 1.
        count: how many labels stay, the same number for each class.
        classes: the number of classes.
        seed: decides which images of a class are taken; the global random state is not touched.

    Returns:
        A mask that is true where the label is kept. The images themselves all stay in the training set.

    Raises:
        InputError: `count` is not a positive multiple of `classes`, or some class has too few images.
    """
    if count < classes or count % classes:
        below, above = count // classes * classes, (count // classes + 1) * classes
        nearest = f"{below} or {above}" if below else f"{above}"
        raise InputError(
            f"labels={count} cannot be shared equally among {classes} classes: "
            f"use a multiple of {classes}, for example {nearest}"
        )
    sizes = torch.bincount(labels, minlength=classes)
    smallest = int(sizes.min())
    if count // classes > smallest:
        raise InputError(
            f"labels={count} asks for {count // classes} images of every class, but the smallest class of these "
            f"{len(labels)} training images has {smallest}: use at most {smallest * classes}"
        )
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(classes):
        members = torch.nonzero(labels == label).squeeze(1)
        chosen = torch.randperm(len(members), generator=generator)[: count // classes]
        mask[members[chosen]] = True
    return mask
