"""How often a classifier is right."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@torch.inference_mode()
def accuracy(
    classifier: nn.Module,
    images: Float[Tensor, "n channels height width"],
    labels: Int[Tensor, " n"],
    *,
    batch_size: int = 1000,
) -> float:
    """Return the fraction of images, 0 to 1, whose largest class logit is that of
    their label.

    The classifier judges as it would in use, in evaluation mode; its mode is put
    back afterwards.

    Raises:
        ValueError: there is no image to judge.
    """
    if len(images) == 0:
        raise ValueError("found no image to judge: accuracy needs at least one")
    was_training = classifier.training
    classifier.eval()
    right = torch.zeros((), dtype=torch.int64, device=images.device)
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    for batch, expected in batches:
        right += (classifier(batch).logits.argmax(dim=1) == expected).sum()
    classifier.train(was_training)
    return right.item() / len(images)
