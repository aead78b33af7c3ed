"""The command line: python -m course_lib train | evaluate | sample | study | benchmark | recipes."""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import textwrap
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from course_lib.errors import InputError

if TYPE_CHECKING:
    from course_lib.recipes.settings import Option

# torch takes seconds to import; --help and a mistyped command should not wait for it. So each command imports its own.


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all other errors do."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help lists what there is")


class _Terminated(KeyboardInterrupt):
    """Somebody sent SIGTERM."""

    signal_number = signal.SIGTERM


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done, 1 a record was not repeated, 2 wrong input or a disk that refused, 128 + signal where it was stopped.
    """
    started = time.perf_counter()
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminate)
    options = argparse.Namespace()
    try:
        options = _parser(arguments).parse_args(arguments)
        code = options.command(options, started)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _refuse(str(error))
    except BrokenPipeError:  # whoever read this has read enough: `recipes | head`
        _discard_output()
        return 128 + 13  # SIGPIPE, for which Windows has no name
    except OSError as error:
        _discard_output()
        return _refuse(f"{error.filename or 'the output'} cannot be used: {error.strerror or error}")
    except MemoryError:
        return _refuse("there is not enough memory: use smaller pictures, batches or networks")
    except KeyboardInterrupt as stop:
        print(f"course-lib: {str(stop) or 'stopped'}", file=sys.stderr)
        if again := _again(options, arguments):
            print(f"course-lib: go on with: {_printable(again)}", file=sys.stderr)
        return 128 + getattr(stop, "signal_number", signal.SIGINT)


def _refuse(reason: str) -> int:
    print(f"course-lib: error: {_printable(' '.join(reason.split()))}", file=sys.stderr)
    return 2


def _printable(text: object) -> str:
    """Return a text with what cannot be written as UTF-8, such as a byte of an odd file name, spelt out."""
    return str(text).encode(errors="backslashreplace").decode()


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated("stopped by SIGTERM")


def _discard_output() -> None:
    """Let nothing more be written where writing failed: Python would try again when it ends, and complain."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _again(options: argparse.Namespace, arguments: list[str]) -> str:
    """Return what one types to go on with a command that was stopped, or nothing."""
    if getattr(options, "out", None) is None or options.command not in (_train, _study):
        return ""
    by_module = Path(sys.argv[0]).name == "__main__.py"
    program = [sys.executable, "-m", "course_lib"] if by_module else [sys.argv[0]]
    more = ["--resume"] if options.command is _train and not options.resume else []
    return shlex.join([*program, *arguments, *more])


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the command that these arguments begin with; the other commands only have names."""
    parser = _Parser(prog="python -m course_lib", description="Train and look up the models of the course.")
    commands = parser.add_subparsers(dest="name of a command", required=True, parser_class=_Parser)
    for name, summary, run, add_options in (
        ("train", "train a recipe; the last line printed is its result as JSON", _train, _add_train),
        (
            "evaluate",
            "measure trained weights again; exit code 1 if they miss their record",
            _evaluate,
            _add_evaluate,
        ),
        ("sample", "draw pictures with trained weights", _sample, _add_sample),
        ("study", "make many runs and collect their records; go on where it was stopped", _study, _add_study),
        ("benchmark", "time the course's training step beside the usual way of writing it", _benchmark, _add_benchmark),
        ("recipes", "list recipes, their data and their options", _recipes, None),
    ):
        command = commands.add_parser(name, allow_abbrev=False, help=summary, description=f"{summary}.")
        command.set_defaults(command=run)
        if add_options and arguments[:1] == [name]:
            add_options(command)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.usage = "python -m course_lib train RECIPE [OPTION …]"
    parser.add_argument("recipe", help="name of a recipe: see `recipes`")
    parser.add_argument("--scale", default="auto", help="quick, full, or auto (default): full where a CUDA GPU is")
    parser.add_argument("--seed", type=_whole, default=0, help="decides everything random (default 0)")
    parser.add_argument(
        "--out", type=Path, help="folder for record, weights, pictures and checkpoints; without it nothing is saved"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    for names, options in _options_by_recipes().items():
        group = parser.add_argument_group(f"settings of {', '.join(names)}")
        for option in options:
            if option.kind is None:
                group.add_argument(option.flag, dest=option.name, action="store_const", const=None, **_told(option))
            elif option.kind is bool:
                action = argparse.BooleanOptionalAction
                group.add_argument(option.flag, dest=option.name, action=action, **_told(option))
            else:
                kind, example = {int: (_whole, "N"), float: (_number, "X"), str: (str, "NAME")}[option.kind]
                group.add_argument(option.flag, dest=option.name, type=kind, metavar=example, **_told(option))


def _told(option: "Option") -> dict[str, object]:
    return {"help": option.help.replace("%", "%%"), "default": argparse.SUPPRESS}


def _options_by_recipes() -> dict[tuple[str, ...], list["Option"]]:
    """Return every option, under the names of all recipes that have it."""
    from course_lib import recipes
    from course_lib.recipes.settings import options

    found, having = {}, defaultdict(list)
    for name, recipe in recipes.RECIPES.items():
        for option in options(recipe.family.Settings):
            found.setdefault(option.name, option)
            having[option.name].append(name)
    groups = defaultdict(list)
    for name, option in found.items():
        groups[tuple(having[name])].append(option)
    return groups


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--pretrained", metavar="NAME|FOLDER", help="shipped weights (see --list), or a run's folder")
    what.add_argument("--list", action="store_true", help="list the weights that the package has")


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pretrained", metavar="NAME|FOLDER", required=True, help="shipped weights, or a run's folder")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write, such as samples.png")
    parser.add_argument("--count", type=_whole, default=80, help="how many pictures (default 80)")
    parser.add_argument("--columns", type=_whole, default=8, help="how many in a row (default 8)")
    parser.add_argument("--seed", type=_whole, default=0, help="decides which ones (default 0)")


def _add_study(parser: argparse.ArgumentParser) -> None:
    from course_lib import studies

    asked = "; ".join(f"{name}: {study.question}" for name, study in studies.STUDIES.items())
    parser.add_argument("study", help=asked)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the collected records")
    parser.add_argument("--jobs", type=_whole, default=1, help="how many runs at a time (default 1)")
    parser.add_argument("--keep", action="store_true", help="then take records and weights into the package")


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="dcgan, at 28 and 64 px, or ssgan")
    parser.add_argument("--rounds", type=_whole, default=7, help="how often all ways take turns (default 7)")
    parser.add_argument("--compile", action="store_true", help="race torch.compile, too; it takes minutes to begin")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON: the ratio at 28 px, and all rows")
    parser.add_argument(
        "--images", type=_whole, default=0, help="do not race: train both ways for so many images, and compare results"
    )


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 0 on: write one, such as 10")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number: write one, such as 0.1") from None


def _train(options: argparse.Namespace, started: float) -> int:
    from course_lib import recipes, runtime

    recipes.find(options.recipe)
    changes = {}
    for names, group in _options_by_recipes().items():
        for option in group:
            if not hasattr(options, option.name):
                continue
            if options.recipe not in names:
                raise InputError(
                    f"{option.flag} is an option of {', '.join(names)}, and {options.recipe} has none of that name: "
                    f"python -m course_lib train --help lists what there is"
                )
            changes[option.name] = getattr(options, option.name)
    try:
        record = recipes.run(
            options.recipe,
            scale=options.scale,
            seed=options.seed,
            out=options.out,
            resume=options.resume,
            changes=changes,
        )
    except KeyboardInterrupt as stop:
        if runtime.is_main_process():
            raise
        return 128 + getattr(stop, "signal_number", signal.SIGINT)  # one of several processes speaks for all
    line = {key: record["identity"][key] for key in ("recipe", "scale", "seed")}
    line["seconds"] = round(time.perf_counter() - started, 2)
    line["resumed_from_step"] = record["resumed_from_step"]
    if runtime.is_main_process():
        print(json.dumps(line | record["metrics"]), flush=True)
    return 0


def _evaluate(options: argparse.Namespace, started: float) -> int:
    from course_lib import pretrained

    if options.list:
        for name in pretrained.names():
            identity = pretrained.read_record(name)["identity"]
            print(f"{name}  {identity['recipe']}, {identity['settings']['data']}, {identity['scale']} scale")
        return 0
    found = pretrained.evaluate(options.pretrained)
    missed = pretrained.misses(found, pretrained.read_record(options.pretrained))
    for line in missed:
        print(f"course-lib: {line}", file=sys.stderr)
    print(json.dumps({"pretrained": options.pretrained, "repeats_its_record": not missed, **found}))
    return 1 if missed else 0


def _sample(options: argparse.Namespace, started: float) -> int:
    from course_lib import plotting, pretrained

    if not 1 <= options.count <= 10_000 or not 1 <= options.columns <= 100:
        raise InputError(
            f"--count {options.count} --columns {options.columns} cannot be drawn: use 1 to 10,000 pictures, "
            "and 1 to 100 columns"
        )
    images = pretrained.sample(options.pretrained, options.count, seed=options.seed)
    figure = plotting.image_grid(images, columns=options.columns).figure
    try:
        figure.savefig(options.out, dpi=150, bbox_inches="tight")
    except ValueError as error:
        raise InputError(f"--out {options.out} cannot be a picture ({error}): end it in .png") from error
    print(_printable(options.out))
    return 0


def _study(options: argparse.Namespace, started: float) -> int:
    from course_lib import studies

    print(_printable(studies.run(options.study, options.out, jobs=options.jobs)))
    if options.keep:
        studies.keep(options.study, options.out)
    return 0


def _benchmark(options: argparse.Namespace, started: float) -> int:
    from course_lib import benchmark

    if options.images:
        print(json.dumps({"benchmark": options.name} | benchmark.reached(options.name, images=options.images)))
        return 0
    result = benchmark.race(options.name, rounds=options.rounds, compiled=options.compile)
    print("\n".join(result.lines()))
    if options.json:
        print(json.dumps(result.as_dict()))
    return 0


def _recipes(options: argparse.Namespace, started: float) -> int:
    from course_lib import recipes
    from course_lib.data.images import SOURCES

    for name, recipe in recipes.RECIPES.items():
        print(f"{name}  {recipe.summary}")
        for scale in ("quick", "full"):
            chosen = ", ".join(f"{key}={value}" for key, value in vars(getattr(recipe, scale)).items())
            print(textwrap.fill(f"{scale}: {chosen}", 100, initial_indent="  ", subsequent_indent="    "))
    print(f"\ndata: {', '.join(SOURCES)}, or folder:PATH, a folder of JPEG and PNG files")
    parser = _Parser()
    _add_train(parser)
    print(f"\n{parser.format_help()}", end="")
    return 0
