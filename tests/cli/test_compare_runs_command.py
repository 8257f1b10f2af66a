"""`spikerl compare-runs` as a user runs it: table, JSON, checks by exit code, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import run_cli


def write_run(folder: Path, seconds: float, joule: float | None, env: str = "Hopper-v5") -> None:
    """A run of 2000 steps: a return of 10 half way, 20 at its end."""
    folder.mkdir()
    (folder / "config.toml").write_text(f'env = "{env}"\nsteps = 2000\n')
    machine = {"machine": {"system": "Linux"}, "versions": {}}
    (folder / "manifest.json").write_text(json.dumps(machine))
    (folder / "result.json").write_text(json.dumps({"steps": 2000, "seconds": seconds, "stopped": "steps"}))
    rows = [f"1000,{seconds / 2},1,eval,return_mean,10.0", f"2000,{seconds},1,eval,return_mean,20.0"]
    (folder / "metrics.csv").write_text("\n".join(["step,seconds,steps_per_second,kind,name,value", *rows, ""]))
    figures = {"tracked": False}
    if joule is not None:
        figures = {
            "tracked": True, "duration_s": seconds, "total_energy_joule": joule, "source": "by hand",
            "energy_joule": {"cpu": {"value": joule, "kind": "measured"}},
        }  # fmt: skip
    (folder / "emissions.json").write_text(json.dumps(figures))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "a", 100.0, 3000.0)
    write_run(tmp_path / "b", 40.0, 2000.0)
    write_run(tmp_path / "untracked", 40.0, None)
    write_run(tmp_path / "ant", 40.0, 2000.0, "Ant-v5")
    return tmp_path


def test_the_table_shows_ratios_kinds_the_return_and_the_quadrant(runs: Path) -> None:
    done = run_cli("compare-runs", "a", "b", cwd=runs)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (step,) = [line.split() for line in lines if line.lstrip().startswith("environment step ")]
    assert step[2:] == "50 ms 20 ms 2.50 1.5 J 1 J 1.50 1.67 measured".split()
    (reached,) = [line for line in lines if line.startswith("to return:")]
    assert "mean return 20, the largest that both reached, after 2000 and 2000 steps" in reached
    assert "environment step: green: faster on more power" in lines
    assert max(map(len, lines[2:6])) <= 100


def test_json_is_versioned_and_the_file_is_the_same_document_not_overwritten_without_force(runs: Path) -> None:
    arguments = ("compare-runs", "a", "b", "--to-return", "10", "--format", "json", "-o", "c.json")
    done = run_cli(*arguments, cwd=runs)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "spikerl.compare-runs/1"
    assert document == json.loads((runs / "c.json").read_text())
    assert document["to_return"]["speedup"] == pytest.approx(2.5)
    assert document["manifest"]["made_from"]["b/result.json"]["name"] == "result.json"
    again = run_cli(*arguments, cwd=runs)
    assert (again.returncode, again.stdout) == (2, "") and "'c.json' exists" in again.stderr
    assert run_cli(*arguments, "--force", cwd=runs).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a", "b", "--min-speedup", "2.4", "--min-greenup", "1.4"), 0, ""),
        (("a", "b", "--min-speedup", "2.6"), 1, "Speedup 2.5 (environment step) is below --min-speedup 2.6"),
        (("a", "b", "--min-greenup", "1.6"), 1, "Greenup 1.5 (environment step) is below --min-greenup 1.6"),
        (("a", "b", "--min-speedup", "2.6", "--to-return", "9"), 1, "(to return 9) is below"),
        (("a", "b", "--min-speedup", "1", "--to-return", "30"), 1, "cannot hold: A never reached 30"),
        (("a", "b", "--min-speedup", "nan"), 1, "is below --min-speedup nan"),
        (("a", "untracked", "--min-speedup", "2"), 0, ""),
        (("a", "untracked", "--min-greenup", "0"), 2, "the energy of 'untracked' is unmeasured"),
        (("a", "ant"), 2, "'a' trained 'Hopper-v5', 'ant' 'Ant-v5': not the same work"),
        (("a", "none"), 2, "'none' is no run folder"),
        (("a", "b", "--to-return", "inf"), 2, "--to-return inf is not finite"),
    ],
)
def test_checks_exit_with_1_and_misuse_with_2_and_a_line(
    runs: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run_cli("compare-runs", *arguments, cwd=runs)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    if code:
        assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["Error", "Hint"]
    if code == 2:
        assert done.stdout == ""
    if "untracked" in arguments and code == 0:
        assert "energy unmeasured, Speedup only" in done.stdout and "2.50" in done.stdout
