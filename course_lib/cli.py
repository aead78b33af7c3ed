"""The command line: python -m course_lib train | evaluate | study | recipes."""

import argparse
import json
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from course_lib.errors import InputError

# torch takes seconds to import; --help and a mistyped option should not wait for it. So each command imports its own.


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all other errors do."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help lists what there is")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done, 1 a record was not repeated, 2 wrong input, 128 + signal where it was stopped.
    """
    started = time.perf_counter()
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        options = _parser().parse_args(arguments)
        return options.command(options, arguments, started)
    except InputError as error:
        print(f"course-lib: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        by_terminate = "SIGTERM" in str(stop)
        signal_number = getattr(stop, "signal_number", signal.SIGTERM if by_terminate else signal.SIGINT)
        resumed = arguments if "--resume" in arguments else [*arguments, "--resume"]
        print(f"course-lib: {stop or 'stopped'}", file=sys.stderr)
        if "--out" in " ".join(arguments):
            print(f"course-lib: go on with: python -m course_lib {shlex.join(resumed)}", file=sys.stderr)
        return 128 + signal_number


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m course_lib", description="Train and look up the models of the course.")
    commands = parser.add_subparsers(dest="name of a command", required=True, parser_class=_Parser)

    train = commands.add_parser(
        "train", allow_abbrev=False, help="train a recipe; the last line printed is its result as JSON"
    )
    train.set_defaults(command=_train)
    train.add_argument("recipe", help="name of a recipe: see `recipes`")
    train.add_argument("--scale", default="auto", help="quick, full, or auto: full where a GPU is present (default)")
    train.add_argument("--seed", type=_whole, default=0, help="decides everything random (default 0)")
    train.add_argument(
        "--out", type=Path, help="folder for record, weights, curve and checkpoints; without it nothing is saved"
    )
    train.add_argument("--epochs", type=_whole, help="train for so many epochs instead of the recipe's number")
    train.add_argument("--data", help="digits, mnist or fashion_mnist instead of the recipe's data")
    train.add_argument("--side-px", type=_whole, help="resize the pictures to so many pixels a side")
    train.add_argument("--labels", type=_whole, help="how many training pictures keep their label")
    train.add_argument(
        "--validation", type=_whole, help="measure on so many training pictures set aside, not on the test pictures"
    )
    train.add_argument("--ablation", help="take something away from the GAN, to see what it was good for")
    changed = train.add_mutually_exclusive_group()
    changed.add_argument("--no-augmentation", action="store_true", help="leave the pictures as they are")
    changed.add_argument("--shift-px", type=_whole, help="shift them at random by up to so many pixels")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")

    evaluate = commands.add_parser(
        "evaluate", allow_abbrev=False, help="measure shipped weights again; exit code 1 where they miss their record"
    )
    evaluate.set_defaults(command=_evaluate)
    what = evaluate.add_mutually_exclusive_group(required=True)
    what.add_argument("--pretrained", metavar="NAME", help="the weights to measure: see --list")
    what.add_argument("--list", action="store_true", help="list the weights that the package has")

    study = commands.add_parser(
        "study", allow_abbrev=False, help="make many runs and collect their records; go on where it was stopped"
    )
    study.set_defaults(command=_study)
    study.add_argument("study", help="name of a study, such as label_budget")
    study.add_argument("--out", type=Path, required=True, help="folder for the runs and the collected records")
    study.add_argument("--jobs", type=_whole, default=1, help="how many runs at a time (default 1)")

    recipes = commands.add_parser("recipes", help="list recipes, their data and their options")
    recipes.set_defaults(command=_recipes, train=train)
    return parser


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt("stopped by SIGTERM")


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on: write one, such as 10")
    return number


def _train(options: argparse.Namespace, arguments: list[str], started: float) -> int:
    from course_lib import recipes, runtime

    record = recipes.run(
        options.recipe,
        scale=options.scale,
        seed=options.seed,
        out=options.out,
        resume=options.resume,
        epochs=options.epochs,
        data=options.data,
        side_px=options.side_px,
        labels=options.labels,
        validation=options.validation,
        ablation=options.ablation,
        augmentation=not options.no_augmentation,
        shift_px=options.shift_px,
    )
    line = {key: record["identity"][key] for key in ("recipe", "scale", "seed")}
    line["seconds"] = round(time.perf_counter() - started, 2)
    line["resumed_from_step"] = record["resumed_from_step"]
    if runtime.is_main_process():
        print(json.dumps(line | record["metrics"]), flush=True)
    return 0


def _evaluate(options: argparse.Namespace, arguments: list[str], started: float) -> int:
    from course_lib import pretrained, records

    if options.list:
        for name in pretrained.names():
            identity = pretrained.read_record(name)["identity"]
            print(f"{name}  {identity['recipe']}, {identity['data']}, {identity['labels']} labels")
        return 0
    found = pretrained.evaluate(options.pretrained)
    record = pretrained.read_record(options.pretrained)
    for line in (missed := records.differences(found, record["metrics"], tolerance=record["tolerance"])):
        print(f"course-lib: {line}", file=sys.stderr)
    print(json.dumps({"pretrained": options.pretrained, "repeats_its_record": not missed, **found}))
    return 1 if missed else 0


def _study(options: argparse.Namespace, arguments: list[str], started: float) -> int:
    from course_lib import studies

    print(studies.run(options.study, options.out, jobs=options.jobs))
    return 0


def _recipes(options: argparse.Namespace, arguments: list[str], started: float) -> int:
    from course_lib import recipes
    from course_lib.data.images import SOURCES
    from course_lib.recipes.semi_supervised import ABLATIONS

    for name, recipe in recipes.RECIPES.items():
        print(f"{name}  {recipe.summary}")
        for scale in ("quick", "full"):
            chosen = getattr(recipe, scale)
            print(f"  {scale:6} {chosen.data}, {chosen.labels} labels, {chosen.epochs} epochs")
    print(f"\ndata: {', '.join(SOURCES)}")
    print("ablations:")
    for name, meaning in ABLATIONS.items():
        print(f"  {name:20} {meaning}")
    print()
    print(options.train.format_help(), end="")
    return 0
