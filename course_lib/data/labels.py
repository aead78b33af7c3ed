"""Hide most labels: the semi-supervised setting."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from course_lib.errors import InputError


def choose_labelled(
    labels: Int[Tensor, " n"],
    count: int,
    *,
    classes: int,
    seed: int,
) -> Bool[Tensor, " n"]:
    """Choose which images keep their label: a balanced few.

    Args:
        labels: the class of every training image, 0 to `classes` - 1.
        count: how many labels stay, the same number for each class.
        classes: the number of classes.
        seed: decides which images of a class are taken; the global random state is
            not touched.

    Returns:
        A mask that is true where the label is kept. The images themselves all stay
        in the training set.

    Raises:
        InputError: `count` is not a positive multiple of `classes`, or some class
            has too few images.
    """
    share, rest = divmod(count, classes)
    if share < 1 or rest:
        nearest = [str(size * classes) for size in (share, share + 1) if size]
        raise InputError(
            f"labels={count} cannot be shared equally among {classes} classes: "
            f"use a multiple of {classes}, for example {' or '.join(nearest)}"
        )
    smallest = int(torch.bincount(labels, minlength=classes).min())
    if share > smallest:
        raise InputError(
            f"labels={count} asks for {share} images of every class, but the "
            f"smallest class of these {len(labels)} training images has {smallest}: "
            f"use at most {smallest * classes}"
        )
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(classes):
        members = torch.nonzero(labels == label).squeeze(1)
        chosen = torch.randperm(len(members), generator=generator)[:share]
        mask[members[chosen]] = True
    return mask
