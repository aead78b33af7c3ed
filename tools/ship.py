"""Copy the weights that come with course_lib out of the runs of the study `mnist`. `make records` calls it."""

import sys
from pathlib import Path

from course_lib import pretrained, studies

# One of 10,000 test images is 0.0001. Another processor adds up in another order and may judge a few differently.
TOLERANCE = 0.0005


def ship_all(runs: Path) -> None:
    """Ship what the book shows; `runs` is the output folder of the study `mnist`."""
    arguments = "train ssgan --scale full --seed 0"
    run, command = studies.folder(runs, arguments), studies.command(arguments)
    pretrained.ship(
        run,
        "ssgan_mnist_1000",
        command=command,
        networks=["discriminator", "generator"],
        metrics=["test_accuracy"],
        tolerance=TOLERANCE,
    )
    pretrained.ship(
        run,
        "baseline_mnist_1000",
        command=command,
        networks=["baseline"],
        metrics=["baseline_test_accuracy"],
        tolerance=TOLERANCE,
    )


if __name__ == "__main__":
    ship_all(Path(sys.argv[1]))
