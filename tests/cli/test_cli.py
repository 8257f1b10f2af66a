"""The installed command, run as a user runs it: results, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import quantized_policy, random_policy, run_cli, run_here

from spikerl_deploy import __version__, cli
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy_file import save_policy
from spikerl_deploy.report.document import read_report

VERBS = [
    "train",
    "quantize",
    "export",
    "import",
    "fit",
    "simulate",
    "sweep",
    "compare-runs",
    "inspect",
    "doctor",
    "backends",
    "run",
    "verify",
    "measure",
    "policies",
    "report",
    "check",
]
TINY = ["--set", "hidden=16", "--set", "critic_hidden=16", "--set", "carbon=false", "--set", "eval_episodes=2"]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    save_policy(quantized_policy(), tmp_path / "policy.nir")
    return tmp_path / "policy.nir"


def test_version_and_help() -> None:
    assert run_cli("--version").stdout == f"spikerl {__version__}\n"
    done = run_cli("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)
    for verb in VERBS:
        assert run_cli(verb, "--help").returncode == 0


@pytest.mark.parametrize("group", [[], ["backends"], ["import"]])
def test_the_list_of_commands_fits_eighty_columns_uncut(group: list[str]) -> None:
    said = run_cli(*group, "--help", COLUMNS="80").stdout
    rows = said.partition("Commands:\n")[2].splitlines()
    assert rows and not [row for row in rows if "..." in row or len(row) > 80 or not row.endswith(".")]


@pytest.mark.parametrize("group", [[], ["backends"], ["import"]])
def test_a_group_without_a_command_shows_its_help_and_exits_2(group: list[str]) -> None:
    done = run_cli(*group)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", run_cli(*group, "--help").stdout)


@pytest.mark.parametrize("command", [["policies"], ["backends"], ["import", "nir"]])
def test_help_loads_no_rich(command: list[str]) -> None:
    code = f"import sys; from spikerl_deploy.cli import app; app([*{command}, '--help'], standalone_mode=False)"
    code += "; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_help_comes_in_under_half_a_second() -> None:
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        run_cli("--help")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The error line of a command that must have failed by the rules: nothing on stdout, an error, a hint, exit 2."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("Error: ")
    assert lines[1].startswith("Hint: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train", "--stpes", "3"], "No such option: --stpes"),
        (["train", "--steps", "many"], "(given: many)"),
        (["train", "--set", "batchsize=3"], "unknown setting in --set 'batchsize'"),
        (["train", "--set", "gamma=2"], "setting 'gamma' = 2.0 must be in [0, 1)"),
        (["train", "--set", "steps=inf"], "setting 'steps' = 'inf' is not an integer"),
        (["train", "--set", "seed=1e25"], "must be below 2^32"),
        (["train", "--set", "carbon=true", "--set", "country=ZZZ", "--out", "r"], "unknown country 'ZZZ'"),
        (["train", "--set", "hidden=3000000,3000000", "--out", "r"], "not enough memory for hidden [3000000, 3000000]"),
        (["train", "--set", "gamma"], "--set 'gamma' is not key=value"),
        (["train", "--config", "none.toml"], "cannot read config 'none.toml'"),
        (["train", "--recipe", "hopping"], "unknown recipe 'hopping'; there is: ant, half-cheetah, hopper"),
        (["train", "--env", "Hoper-v5"], "unknown environment 'Hoper-v5'; there is: Ant-v5"),
        (["train", "--env", "CartPole-v1"], "a bounded vector is needed"),
        (["train", "--device", "tpu"], "unknown value of setting 'device' 'tpu'; there is: auto, cpu, cuda"),
        (["export", "none", "-o", "b.nir"], "nothing at 'none'"),
        (["export", ".", "-o", "b.nir"], "'.' is no run folder"),
        (["export", "policy.nir", "--to", "nri"], "unknown export format 'nri'"),
        (["export", "policy.nir"], "'policy.nir' exists and is not overwritten"),
        (["export", "policy.nir", "--bits", "9", "-o", "b.nir"], "bits 9 is outside [2, 8]"),
        (["simulate", "none.nir"], "no policy file at 'none.nir'"),
        (["simulate", "text.nir"], "'text.nir' is not a NIR file"),
        (["simulate", "policy.nir", "--backend", "lawa"], "unknown backend 'lawa'; there is: fixed, lava, lava-float"),
        (["simulate", "policy.nir", "--backend", "fixed", "--env", "Hopper-v5"], "'Hopper-v5' observes 11 values"),
        (
            ["simulate", "policy.nir", "--backend", "fixed", "--compare", "fixed"],
            "--compare fixed is the backend itself",
        ),
        (
            ["simulate", "policy.nir", "--backend", "fixed", "--min-retention", "0.9"],
            "--min-retention needs a baseline",
        ),
        (
            ["simulate", "policy.nir", "--backend", "fixed", "--episodes", "0"],
            "'--episodes': Input should be greater than or equal to 1 (given: 0)",
        ),
        (["simulate", "policy.nir", "--backend", "fixed", "-o", "text.nir"], "'text.nir' is a file"),
        (["simulate", "float.nir", "--backend", "fixed"], "backend 'fixed' runs integers"),
        (["simulate", "policy.nir", "--worker-timeout", "0"], "worker time limit 0 s must be positive"),
        (["simulate", "policy.nir", "--worker-timeout", "inf"], "worker time limit inf s must be positive"),
        (["simulate", "policy.nir", "--backend", "fixed", "--bf16"], "--bf16 concerns none of the backends fixed"),
        (["simulate", "policy.nir", "--backend", "fixed", "--device", "x"], "--device concerns none of the backends"),
        (["simulate", "policy.nir", "--backend", "torch", "--wheel", "x"], "--wheel concerns none of the backends"),
        (["simulate", "policy.nir", "--backend", "fixed", "-o", "text.nir/x"], "cannot write 'text.nir/x/report"),
        (["simulate", "float.nir", "--backend", "fixed", "--dry-run"], "backend 'fixed' runs integers"),
        (["simulate", "policy.nir", "--wheel", "none.whl"], "no wheel at 'none.whl'"),
        (["backends", "install", "lava", "--wheel", "none.whl"], "no wheel at 'none.whl'"),
        (["inspect", "x" * 300], "cannot look at"),
        (["backends", "install", "fixed"], "backend 'fixed' needs no installation"),
        (["backends", "install", "lva"], "unknown backend 'lva'"),
        (["inspect", "text.nir"], "'text.nir' is not a NIR file"),
    ],
)
def test_an_error_is_one_line_with_a_hint_and_exit_code_2(
    policy: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "text.nir").write_text("not a policy")
    save_policy(random_policy(), tmp_path / "float.nir")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert message in error_of(run_here(*arguments, cwd=tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_traceback_comes_on_request_only(tmp_path: Path) -> None:
    done = run_cli("export", "none", cwd=tmp_path, SPIKERL_DEBUG="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


INTERRUPTED_IMPORT = """
import os, signal, sys, time
if hasattr(sys, "begun"):
    raise ImportError('generic_type: type "MjSpec" is already registered!')
sys.begun = True
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
except KeyboardInterrupt as error:
    raise ImportError("initialization failed") from error
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("mujoco", ["simulate", "policy.nir"]),
        ("mujoco", ["doctor"]),
        ("torch", ["doctor"]),
        ("torch", ["backends", "list"]),
    ],
)
def test_an_interrupt_while_a_module_is_imported_is_no_missing_package(
    policy: Path, tmp_path: Path, module: str, arguments: list[str]
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / f"{module}.py").write_text(INTERRUPTED_IMPORT)  # as MuJoCo's extension modules do on Ctrl-C
    done = run_cli(*arguments, cwd=tmp_path, PYTHONPATH=str(modules))
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("broken_by", "stderr"),
    [(KeyboardInterrupt(), "interrupted\n"), (OSError("no such library"), "Error: no MuJoCo\nHint: spikerl doctor\n")],
)
def test_an_interrupt_that_a_library_tells_as_a_missing_package_ends_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken_by: BaseException, stderr: str
) -> None:
    def fail(**_options: object) -> None:
        missing = ImportError("initialization failed")
        missing.__cause__ = broken_by
        raise SpikerlError("no MuJoCo", "spikerl doctor") from missing

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == (130 if isinstance(broken_by, KeyboardInterrupt) else 2)
    assert capsys.readouterr().err == stderr


def test_an_interrupt_that_comes_in_a_callback_ends_a_command() -> None:
    script = """
import time
from spikerl_deploy import cli

class Lost:
    def __del__(self):
        raise KeyboardInterrupt

def work(**_options):
    Lost()
    time.sleep(60)

cli.app = work
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_train_export_simulate_go_hand_in_hand(tmp_path: Path) -> None:
    """The three words of the README, small: a run, a file, a report."""
    train = run_cli(
        "train", "--env", "InvertedPendulum-v5", "--steps", "400", "--seed", "1", "--out", "run", *TINY, cwd=tmp_path
    )
    assert train.returncode == 0, train.stderr
    assert "InvertedPendulum-v5: best mean return" in train.stdout
    assert "refused" not in error_of(run_cli("train", "--steps", "10", "--out", "run", cwd=tmp_path))
    for source in ("run", "run/checkpoints/last.pt"):
        export = run_cli("export", source, "--to", "nir", "--bits", "8", "-o", "p.nir", "--force", cwd=tmp_path)
        assert export.returncode == 0, export.stderr
    again = run_cli("export", "run", "--bits", "4", "-o", "p4.nir", "--format", "json", cwd=tmp_path)
    assert json.loads(again.stdout)["bits"] == 4
    simulate = run_cli(
        *"simulate p.nir --backend lava --compare torch --episodes 2 --seed 7 -o report --format json".split(),
        cwd=tmp_path,
    )
    assert simulate.returncode == 0, simulate.stderr
    assert json.loads(simulate.stdout) == read_report(tmp_path / "report")
    (document,) = json.loads(simulate.stdout)["deployments"]
    assert (tmp_path / "report" / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert document["environment"]["seeds"] == [7, 8]
    assert set(document["backends"]) == {"lava", "torch"}
    assert all(len(entry["returns"]) == 2 for entry in document["backends"].values())
    assert document["comparison"]["retention"] > 0
    assert document["policy"]["provenance"]["origin"]["settings"]["seed"] == 1
    assert "not overwritten" in error_of(
        run_cli(*"simulate p.nir --backend fixed --episodes 1 -o report".split(), cwd=tmp_path)
    )
    inspect = json.loads(run_cli("inspect", "p.nir", "--format", "json", cwd=tmp_path).stdout)
    assert (inspect["env"], inspect["bits"], inspect["sizes"]) == ("InvertedPendulum-v5", 8, [40, 16, 10])


def test_fixed_gives_the_returns_of_lava_and_json_is_all_of_stdout(policy: Path) -> None:
    done = [
        run_cli("simulate", str(policy), "--backend", name, "--episodes", "3", "--parallel", "2", "--format", "json")
        for name in ("fixed", "lava")
    ]
    returns = [
        json.loads(d.stdout)["deployments"][0]["backends"][n]["returns"]
        for d, n in zip(done, ("fixed", "lava"), strict=True)
    ]
    assert returns[0] == returns[1]


def test_a_check_that_fails_exits_1(policy: Path) -> None:
    arguments = ["simulate", str(policy), "--backend", "fixed", "--compare", "torch", "--episodes", "2"]
    assert run_cli(*arguments, "--min-retention", "0.1").returncode == 0
    done = run_cli(*arguments, "--min-retention", "50")
    assert done.returncode == 1
    assert "is below 50" in done.stderr
    assert "retention" in done.stdout


def test_dry_runs_write_nothing(policy: Path, tmp_path: Path) -> None:
    save_policy(random_policy(), tmp_path / "float.nir")
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments in (
        ["train", "--recipe", "inverted-pendulum", "--dry-run"],
        ["export", "float.nir", "--bits", "6", "--dry-run"],
        ["simulate", "policy.nir", "--backend", "fixed", "-o", "report", "--dry-run"],
    ):
        for extra in ([], ["--format", "json"]):
            done = run_cli(*arguments, *extra, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert done.stdout
            if extra:
                json.loads(done.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_no_install_refuses_lava_where_it_is_not_installed(policy: Path, tmp_path: Path) -> None:
    done = run_cli("simulate", str(policy), "--no-install", SPIKERL_CACHE_DIR=str(tmp_path / "cache"))
    assert "--no-install was given" in done.stderr
    assert done.returncode == 2
    assert not (tmp_path / "cache").exists()


def test_quiet_leaves_results_only(policy: Path) -> None:
    done = run_cli("-q", "simulate", str(policy), "--backend", "fixed", "--episodes", "1")
    assert done.stderr == ""
    assert "InvertedPendulum-v5" in done.stdout


def test_verbose_shows_what_mujoco_says_of_a_model(policy: Path) -> None:
    arguments = ("simulate", str(policy), "--backend", "fixed", "--env", "HalfCheetah-v5")
    assert "MuJoCo: " not in run_cli(*arguments).stderr
    assert "MuJoCo: " in run_cli("-v", *arguments).stderr


def test_a_reader_that_goes_away_is_no_traceback(policy: Path) -> None:
    command = f"{Path(sys.executable).parent}/spikerl train --list-settings --format json | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_doctor_and_backends_speak_json() -> None:
    checks = json.loads(run_cli("doctor", "--format", "json").stdout)["checks"]
    by_name = {check["name"]: check for check in checks}
    assert {"python", "torch", "cuda", "bf16", "mujoco", "rendering", "backend lava"} <= set(by_name)
    assert by_name["mujoco"]["ok"]
    rows = json.loads(run_cli("backends", "list", "--format", "json").stdout)["backends"]
    ours = {"fixed", "lava", "lava-float", "lava-stock", "torch"}
    assert {row["name"] for row in rows} == ours | {"norse", "snntorch", "spikingjelly"}
    assert all(row["ready"] for row in rows if row["name"] in ours)
    assert "HalfCheetah-v5" in run_cli("doctor", "--environments").stdout.split()


def test_settings_come_from_flag_over_set_over_variable_over_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("seed = 1\nsteps = 100\ngamma = 0.5\nbatch_size = 7\n")
    done = run_cli(
        *"train --config c.toml --set steps=300 --set seed=3 --seed 4 --dry-run --format json".split(),
        cwd=tmp_path,
        SPIKERL_TRAIN_STEPS="200",
        SPIKERL_TRAIN_GAMMA="0.6",
    )
    settings = json.loads(done.stdout)["settings"]
    assert [settings[key] for key in ("seed", "steps", "gamma", "batch_size")] == [4, 300, 0.6, 7]
    (tmp_path / "c.toml").write_text("gama = 0.5\n")
    assert "did you mean 'gamma'" in run_cli("train", "--config", "c.toml", cwd=tmp_path).stderr
