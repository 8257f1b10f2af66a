"""The command line: `spikerl VERB`. One module a verb, each thin: parse, call, print.

Importing it loads neither torch, gymnasium, matplotlib nor numpy, so that help and completion are quick.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import Annotated

import typer

from spikerl_deploy._version import __version__
from spikerl_deploy.cli import (
    backends,
    check,
    compare_runs,
    doctor,
    export,
    fit,
    import_policy,
    inspect,
    measure,
    policies,
    quantize,
    report,
    run,
    simulate,
    sweep,
    train,
    verify,
)
from spikerl_deploy.cli.common import Verbosity
from spikerl_deploy.errors import SpikerlError, error_lines
from spikerl_deploy.interrupts import import_interrupted, no_interrupt_lost

DEBUG_VARIABLE = "SPIKERL_DEBUG"
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="spikerl",
    help="Train spiking policies, export them to NIR, run them on neuromorphic simulators.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich is slow to import
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", short_help="Train a policy with TD3: spiking, or its dense baseline.")(train.train)
app.command("sweep", short_help="Search hyper-parameters; given again, continue.")(sweep.sweep)
app.command("quantize", short_help="Quantize a policy so that its spikes and actions stay.")(quantize.quantize)
app.command("export", short_help="Quantize a policy and write it as one file.")(export.export)
app.command("simulate", short_help="Run a policy in closed loop on a backend.")(simulate.simulate)
app.command("run", short_help="Run a NIR graph by forward Euler on a backend.")(run.run)
app.command("verify", short_help="Compare every spike of a policy across backends.")(verify.verify)
app.command("measure", short_help="Measure energy and speed of inference in torch.")(measure.measure)
app.command("report", short_help="Make one report of runs, deployments and measurements.")(report.report)
app.command("check", short_help="Hold a report against bounds.")(check.check)
app.command("fit", short_help="Check whether a policy fits a chip.")(fit.fit)
app.command("inspect")(inspect.inspect)
app.command("compare-runs", short_help="Compare time and energy of two training runs.")(compare_runs.compare_runs)
app.command("policies", short_help="List the policies that ship with spikerl.")(policies.policies)
app.command("doctor", short_help="Say what is installed and works.")(doctor.doctor)
app.add_typer(backends.app, name="backends")
app.add_typer(import_policy.app, name="import")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spikerl {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show log messages, such as MuJoCo's.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    Verbosity.quiet = quiet
    if verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("spikerl").setLevel(logging.DEBUG)


def main() -> None:
    """Entry point: runs the app and turns every expected error into one line, a hint and an exit code."""
    with no_interrupt_lost():
        code = _run()
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    sys.exit(code)


def _run() -> int:
    """Exit code of the command."""
    try:
        code = app(standalone_mode=False)
    except (SpikerlError, ImportError) as error:
        if import_interrupted(error):
            return INTERRUPTED
        if not isinstance(error, SpikerlError):
            raise
        _fail(error.message, error.hint, error)
        return error.exit_code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        if context is not None and error.format_message() == context.get_help():  # a group without a command
            print(error.format_message(), file=sys.stderr)
            return 2
        command = context.command_path if context is not None else "spikerl"
        message = " ".join(error.format_message().split())
        _fail(message + _given_value(message), f"{command} --help", error)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader is gone; flush into nothing
        return 1
    return code if isinstance(code, int) else 0  # 130 after Ctrl-C, which Typer catches


def _given_value(message: str) -> str:
    """Typer's errors name the option but not always the value it got: find that on the command line."""
    named = re.search(r"Invalid value for '(?:-\w' / ')?(--[\w-]+)", message)
    if named is None:
        return ""
    for index, argument in enumerate(sys.argv):
        name, equals, value = argument.partition("=")
        if name == named[1]:
            return f" (given: {value})" if equals else f" (given: {' '.join(sys.argv[index + 1 : index + 2])})"
    return ""


def _fail(message: str, hint: str | None, error: Exception) -> None:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        raise error
    print(error_lines(message, hint), file=sys.stderr)
