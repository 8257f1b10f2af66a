"""Speedup, Greenup and Powerup against numbers worked out by hand, and refusals of what is not the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_json
from training.compare_runs import Comparison, Work, compare_document
from training.run_reader import read_run, weaker
from training.settings import Settings

EVALUATIONS = ((1000, 10.0, 100.0), (2000, 20.0, 300.0), (3000, 30.0, 250.0), (4000, 40.0, 500.0))


def write_metrics(folder: Path, evaluations: tuple[tuple[int, float, float], ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["step,seconds,steps_per_second,kind,name,value"]
    rows += ["7,0.070,100.0,episode,return,900.0", "8,0.080,100.0,train,return_mean,900.0"]  # no evaluations
    for step, seconds, value in evaluations:
        rows.append(f"{step},{seconds:.3f},100.0,eval,return_mean,{value!r}")
        rows.append(f"{step},{seconds:.3f},100.0,eval,return_std,9999.0")
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")


def emissions(joule: float, seconds: float, cpu: str = "measured", gpu: float | None = None) -> dict[str, Any]:
    parts = {
        "cpu": {"value": joule - (gpu or 0), "kind": cpu},
        "gpu": {"value": gpu, "kind": "unmeasured" if gpu is None else "measured"},
    }
    return {"tracked": True, "source": "CodeCarbon", "duration_s": seconds, "total_energy_joule": joule,
            "energy_joule": parts, "cpu_model": "C", "gpu_model": ""}  # fmt: skip


def write_run(
    folder: Path,
    evaluations: tuple[tuple[int, float, float], ...] = EVALUATIONS,
    energy: dict[str, Any] | None = None,
    stopped: str | None = "steps",
    settings: str = "",
    **result: float,
) -> Path:
    write_metrics(folder, evaluations)
    (folder / "config.toml").write_text(f'env = "Hopper-v5"\nseed = {len(str(folder))}\n{settings}')
    machine = {"system": "Linux", "architecture": "x86_64"}
    write_json(folder / "manifest.json", {"machine": machine, "versions": {"torch": "2.6"}})
    outcome = {"steps": evaluations[-1][0], "seconds": evaluations[-1][1], "stopped": stopped} | result
    if stopped is not None:
        write_json(folder / "result.json", outcome)
    write_json(folder / "emissions.json", energy if energy is not None else {"tracked": False})
    return folder


def compare(a: Path, b: Path, wanted: float | None = None) -> dict[str, Any]:
    document = compare_document(read_run(a), read_run(b), wanted)
    json.dumps(document, allow_nan=False)
    return document


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """4000 steps in 40 s and 2000 J: 50 W; a return of 300 after 20 s."""
    return write_run(tmp_path / "slow", energy=emissions(2000, 40))


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    """4000 steps in 16 s and 1600 J: 100 W; a return of 300 after 12 s."""
    points = ((1000, 4.0, 50.0), (2000, 8.0, 200.0), (3000, 12.0, 300.0), (4000, 16.0, 400.0))
    return write_run(tmp_path / "fast", points, emissions(1600, 16))


def ratios(entry: dict[str, Any]) -> tuple[float, float, float]:
    return entry["speedup"], entry["greenup"], entry["powerup"]


def test_a_step_a_return_and_the_whole_run_have_the_ratios_worked_out_by_hand(slow: Path, fast: Path) -> None:
    document = compare(slow, fast, 300)
    assert ratios(document["per_step"]) == pytest.approx((2.5, 1.25, 2.0))
    assert document["per_step"]["a"]["seconds"] == pytest.approx(0.01)
    assert document["per_step"]["b"]["joule"] == pytest.approx(0.4)
    assert ratios(document["whole_run"]) == pytest.approx((2.5, 1.25, 2.0))
    assert document["whole_run"]["b"]["joule"] == pytest.approx(1600)
    reached = document["to_return"]
    assert ratios(reached) == pytest.approx((20 / 12, 1000 / 1200, 2.0))
    assert (reached["a"]["steps"], reached["b"]["steps"]) == (2000, 3000)
    assert (reached["a"]["joule"], reached["b"]["joule"]) == pytest.approx((1000, 1200))
    assert document["per_step"]["quadrant"] == "green: faster on more power"
    assert reached["quadrant"] == "red: faster on more power"


def test_the_baseline_is_the_first_run(slow: Path, fast: Path) -> None:
    assert ratios(compare(fast, slow)["per_step"]) == pytest.approx((0.4, 0.8, 0.5))


def test_powerup_is_speedup_over_greenup_as_the_paper_has_it(slow: Path, fast: Path) -> None:
    for entry in (compare(slow, fast)[key] for key in ("per_step", "to_return", "whole_run")):
        assert entry["greenup"] == pytest.approx(entry["speedup"] / entry["powerup"])


def test_the_default_return_is_the_largest_that_both_reached_not_the_last(slow: Path, tmp_path: Path) -> None:
    early = write_run(tmp_path / "early", ((1000, 5.0, 450.0), (4000, 20.0, 200.0)))
    reached = compare(slow, early)["to_return"]
    assert reached["mean_return"] == 450
    assert (reached["a"]["steps"], reached["b"]["steps"]) == (4000, 1000)
    assert reached["speedup"] == pytest.approx(8)


def test_a_return_that_one_never_reached_is_named_and_nothing_is_made_up(slow: Path, fast: Path) -> None:
    reached = compare(slow, fast, 450)["to_return"]
    assert reached["unavailable"] == "B never reached 450; its best mean return is 400"
    assert "speedup" not in reached


@pytest.mark.parametrize(
    ("a", "b", "step", "reached"),
    [
        ("measured", "measured", "measured", "modelled"),
        ("measured", "modelled", "modelled", "modelled"),
        ("modelled", "measured", "modelled", "modelled"),
    ],
)
def test_an_energy_ratio_has_the_weaker_kind_and_a_part_of_a_run_is_always_modelled(
    tmp_path: Path, a: str, b: str, step: str, reached: str
) -> None:
    runs = [write_run(tmp_path / name, energy=emissions(100, 40, kind)) for name, kind in (("a", a), ("b", b))]
    document = compare(*runs)
    assert document["per_step"]["energy_kind"] == step == document["whole_run"]["energy_kind"]
    assert document["to_return"]["energy_kind"] == reached
    assert any("modelled by constants" in line for line in document["warnings"]) == (step == "modelled")


def test_the_weakest_kind_of_several_wins() -> None:
    assert weaker("measured", "unmeasured", "modelled") == "unmeasured"
    assert weaker("measured", "modelled") == "modelled"


def test_without_energy_speedup_is_still_given_and_the_rest_is_called_unmeasured(slow: Path, tmp_path: Path) -> None:
    document = compare(slow, write_run(tmp_path / "b"))
    entry = document["per_step"]
    assert entry["speedup"] == pytest.approx(1)
    assert (entry["greenup"], entry["powerup"], entry["quadrant"]) == (None, None, None)
    assert entry["energy_kind"] == "unmeasured" == document["to_return"]["energy_kind"]
    assert "the energy of B is unmeasured: Speedup only" in document["warnings"]


@pytest.mark.parametrize("change", [{"total_energy_joule": 0}, {"duration_s": 0}, {"energy_joule": {}}])
def test_figures_that_say_nothing_are_unmeasured_not_zero(slow: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    entry = compare(slow, write_run(tmp_path / "b", energy=emissions(100, 40) | change))["per_step"]
    assert (entry["greenup"], entry["energy_kind"]) == (None, "unmeasured")


def test_energy_that_covers_part_of_a_run_is_scaled_said_so_and_modelled(slow: Path, tmp_path: Path) -> None:
    half = write_run(tmp_path / "half", energy=emissions(1000, 20))
    document = compare(slow, half)
    assert ratios(document["whole_run"]) == pytest.approx((1, 1, 1))
    assert document["whole_run"]["energy_kind"] == "modelled"
    assert "B took 40.0 s; its energy is scaled from 20.0 s" in document["warnings"]


def test_whole_runs_of_different_lengths_are_not_compared(slow: Path, tmp_path: Path) -> None:
    document = compare(slow, write_run(tmp_path / "b", EVALUATIONS[:2], emissions(500, 20)))
    assert document["whole_run"] == {"unavailable": "not the same work: 4000 steps in all (seeds: 1), 2000 (seeds: 1)"}
    assert ratios(document["per_step"]) == pytest.approx((1, 2, 0.5))
    assert any("A made 4000 steps a seed, B 2000" in line for line in document["warnings"])


@pytest.mark.parametrize("stopped", ["interrupted", "pruned", None])
def test_a_run_that_was_not_finished_is_warned_of(slow: Path, tmp_path: Path, stopped: str | None) -> None:
    document = compare(slow, write_run(tmp_path / "b", stopped=stopped))
    assert f"B was not finished ({stopped or 'no result.json'})" in document["warnings"]
    assert document["whole_run"] == {"unavailable": "a run was not finished"}
    assert document["per_step"]["speedup"] == pytest.approx(1)  # without a result, by the last record


def test_settings_that_differ_are_listed_but_the_seed_is_not(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", settings="batch_size = 100\nhidden = [64]\nbf16 = true\n")
    b = write_run(tmp_path / "longer-name", settings="batch_size = 256\nhidden = [64]\nstop_return = inf\n")
    assert compare(a, a)["differing_settings"] == {}
    document = compare(a, b)
    assert document["differing_settings"] == {
        "batch_size": [100, 256], "bf16": [True, False], "stop_return": [None, "inf"]
    }  # fmt: skip
    line = "settings differ: batch_size 100 and 256, stop_return None and inf, bf16 True and False"
    assert line in document["warnings"]


def test_a_setting_that_a_run_does_not_name_had_its_default(tmp_path: Path) -> None:
    """Runs of before there were kinds of actors against ones of today."""
    today = Settings(env="Hopper-v5", steps=4000)
    new = ("actor", "readout", "target_actor", "proxy_hidden", "proxy_lr", "proxy_steps", "hidden", "polyak")
    lines = [line for line in today.to_toml().splitlines() if not line.startswith(("env ", "seed "))]
    old = write_run(tmp_path / "a", settings="\n".join(line for line in lines if not line.startswith(new)))
    plain = write_run(tmp_path / "b", settings="\n".join(lines))
    dense = write_run(tmp_path / "c", settings="\n".join(lines).replace('actor = "spiking"', 'actor = "mlp"'))
    assert all(name not in read_run(old).settings for name in new)
    for document in (compare(old, plain), compare(plain, old)):
        assert document["differing_settings"] == {}
        assert not any(line.startswith("settings differ") for line in document["warnings"])
    document = compare(old, dense)
    assert document["differing_settings"] == {"actor": ["spiking", "mlp"]}
    assert "settings differ: actor spiking and mlp" in document["warnings"]


def test_machines_versions_hardware_and_metered_parts_that_differ_are_warned_of(slow: Path, tmp_path: Path) -> None:
    b = write_run(tmp_path / "b", energy=emissions(2000, 40, gpu=500.0) | {"gpu_model": "H100"})
    machine = {"system": "Linux", "architecture": "aarch64"}
    write_json(b / "manifest.json", {"machine": machine, "versions": {"torch": "2.7"}})
    warnings = compare(slow, b)["warnings"]
    assert "machines differ: architecture x86_64 and aarch64" in warnings
    assert "versions differ: torch 2.6 and 2.7" in warnings
    assert "hardware differ: gpu_model  and H100" in warnings
    assert "the energy of A counts cpu; that of B cpu, gpu" in warnings
    assert compare(slow, slow)["warnings"] == []


def test_a_return_both_had_at_once_is_said_to_show_nothing(slow: Path) -> None:
    assert (
        "both reached 50 at their first evaluation: that says nothing of learning"
        in compare(slow, slow, 50)["warnings"]
    )


def test_runs_of_different_environments_are_refused(slow: Path, fast: Path) -> None:
    (fast / "config.toml").write_text('env = "Ant-v5"\n')
    with pytest.raises(SpikerlError, match="'Hopper-v5'.*'Ant-v5': not the same work") as caught:
        compare(slow, fast)
    assert caught.value.exit_code == 2


def write_seeds(folder: Path, *curves: tuple[tuple[int, float, float], ...], joule: float = 800) -> Path:
    """A run of several seeds; those of the trainer end together."""
    end = max(curve[-1] for curve in curves)
    write_run(folder, curves[0], emissions(joule, end[1]), steps=end[0], seconds=end[1])
    (folder / "metrics.csv").unlink()
    for number, curve in enumerate(curves):
        write_metrics(folder / f"seed-{number}", curve)
    return folder


def test_seeds_side_by_side_are_a_mean_curve_with_the_steps_of_all_and_the_time_of_the_last(tmp_path: Path) -> None:
    first = ((1000, 10.0, 100.0), (2000, 20.0, 300.0), (3000, 30.0, 900.0))
    second = ((1000, 11.0, 200.0), (2000, 22.0, 500.0))
    seeds = write_seeds(tmp_path / "seeds", first, second)
    run = read_run(seeds)
    assert (run.seeds, run.steps, run.seconds) == (2, 6000, 30.0)
    curve = [(point.step, point.seconds, point.mean_return) for point in run.evaluations]
    assert curve == [(1000, 11.0, 150.0), (2000, 22.0, 400.0)]
    document = compare(seeds, seeds, 350)
    assert document["a"]["seeds"] == 2
    assert document["to_return"]["a"]["seconds"] == 22.0
    assert document["per_step"]["a"]["joule"] == pytest.approx(800 / 6000)


def test_other_numbers_of_seeds_are_compared_by_the_step_only(slow: Path, tmp_path: Path) -> None:
    seeds = write_seeds(tmp_path / "seeds", EVALUATIONS, EVALUATIONS, joule=3000)
    document = compare(slow, seeds)
    assert ratios(document["per_step"]) == pytest.approx((2, 2000 / 4000 / (3000 / 8000), 1.5))
    assert document["to_return"]["unavailable"] == "not the same work: seeds 1 and 2"
    assert "seeds side by side: 1 in A, 2 in B; only steps can be compared" in document["warnings"]
    assert not any("steps a seed" in line for line in document["warnings"])
    assert "8000 (seeds: 2)" in document["whole_run"]["unavailable"]


def test_as_many_steps_of_other_numbers_of_seeds_are_not_the_same_whole_run(slow: Path, tmp_path: Path) -> None:
    seeds = write_seeds(tmp_path / "seeds", EVALUATIONS[:2], EVALUATIONS[:2])
    assert "4000 steps in all (seeds: 1), 4000 (seeds: 2)" in compare(slow, seeds)["whole_run"]["unavailable"]


def test_a_result_from_before_a_run_was_resumed_does_not_count(slow: Path) -> None:
    assert read_run(slow).finished
    write_json(slow / "result.json", {"steps": 3000, "seconds": 30.0, "stopped": "stop_return"})
    run = read_run(slow)
    assert (run.steps, run.seconds, run.stopped, run.finished) == (4000, 40.0, None, False)


def test_seeds_without_a_result_count_up_to_their_last_record(tmp_path: Path) -> None:
    seeds = write_seeds(tmp_path / "seeds", EVALUATIONS, EVALUATIONS[:3])
    (seeds / "result.json").unlink()
    run = read_run(seeds)
    assert (run.steps, run.seconds, run.finished) == (8000, 40.0, False)


def test_ranks_are_read_and_their_machines_warned_of(slow: Path, tmp_path: Path) -> None:
    several = write_run(tmp_path / "several", ranks=4)
    assert (read_run(slow).ranks, read_run(several).ranks) == (1, 4)
    assert (
        "B ran on 4 ranks: its energy is that of the first one's machine, no other"
        in compare(slow, several)["warnings"]
    )


def test_a_folder_of_runs_of_their_own_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "sweep" / "seed-0")
    with pytest.raises(SpikerlError, match="'.*sweep' is no run folder \\(config.toml is missing"):
        read_run(tmp_path / "sweep")


@pytest.mark.parametrize(
    ("speedup", "powerup", "name"),
    [
        (2.0, 0.5, "green: faster on less power"),
        (2.0, 1.0, "green: faster on the same power"),
        (2.0, 1.5, "green: faster on more power"),
        (0.8, 0.5, "green: slower on less power"),
        (1.2, 2.0, "red: faster on more power"),
        (0.5, 0.8, "red: slower on less power"),
        (0.5, 1.0, "red: slower on the same power"),
        (0.5, 2.0, "red: slower on more power"),
        (1.0, 0.5, "green: as fast on less power"),
        (1.004, 0.997, "neutral: as fast on the same power"),
    ],
)
def test_each_part_of_the_plane_has_its_name(speedup: float, powerup: float, name: str) -> None:
    seconds, watts = 10.0, 30.0  # of B; A follows from the ratios
    b = Work(seconds, watts * seconds, "measured")
    a = Work(seconds * speedup, watts / powerup * seconds * speedup, "measured")
    comparison = Comparison(a, b)
    assert comparison.quadrant == name
    assert (comparison.speedup, comparison.powerup) == pytest.approx((speedup, powerup))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metrics.csv", "step,seconds,kind,name\n1,2,eval,return_mean\n", "line 2: no column 'value'"),
        ("metrics.csv", "step,seconds,kind,name,value\n1,x,eval,return_mean,3\n", "line 2: could not convert"),
        ("metrics.csv", "step,seconds,kind,name,value\n9,2,eval,a,3\n8,3,eval,a,3\n", "line 3: .*backwards"),
        ("metrics.csv", "step,seconds,kind,name,value\n8,3,eval,a,3\n9,2,eval,a,3\n", "line 3: .*backwards"),
        ("metrics.csv", "step,seconds,kind,name,value\n9,2,eval,return_mean,nan\n", "return_mean is nan"),
        ("metrics.csv", "step,seconds,kind,name,value\n9,2,eval\n", "line 2: fields are missing"),
        ("result.json", "{", "result.json"),
        ("result.json", "[1]", "holds no table"),
        ("result.json", '{"steps": 4, "seconds": NaN}', "seconds = nan"),
        ("result.json", '{"steps": "4", "seconds": 1}', "steps = '4'"),
        ("result.json", '{"steps": 4000, "seconds": 0}', "4000 steps in 0 s"),
        ("config.toml", "env = ", "config.toml"),
        ("emissions.json", '{"tracked": true}', "energy_joule = None"),
        ("emissions.json", '{"tracked": true, "energy_joule": {"cpu": {"kind": "guessed"}}}', "energy_joule.cpu"),
        ("emissions.json", '{"tracked": true, "energy_joule": {"cpu": {"kind": "measured"}}}', "value = None"),
        ("emissions.json", '{"tracked": true, "energy_joule": {}}', "total_energy_joule = None"),
    ],
)
def test_a_malformed_file_is_an_error_of_one_line_that_names_it(slow: Path, file: str, text: str, message: str) -> None:
    (slow / file).write_text(text)
    with pytest.raises(SpikerlError, match=message) as caught:
        read_run(slow)
    assert "\n" not in caught.value.message and str(slow) in caught.value.message and caught.value.hint


def test_what_is_no_run_folder_is_refused(tmp_path: Path, slow: Path) -> None:
    with pytest.raises(SpikerlError, match="is no run folder"):
        read_run(tmp_path)
    (slow / "config.toml").unlink()
    with pytest.raises(SpikerlError, match="config.toml is missing"):
        read_run(slow)


def test_it_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, training.compare_runs; print([m for m in ('torch', 'numpy', 'codecarbon') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
