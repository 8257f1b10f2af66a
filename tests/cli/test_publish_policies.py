"""Publishing a policy: a tiny run becomes a shipped file and a card whose every number can be found again."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import run_here
from training_support import PENDULUM, tiny

from benchmarks import publish as publishing
from benchmarks.publish import Plan, better_method, main, publish
from benchmarks.publish_card import refuse_paths
from benchmarks.publish_compare import check_comparable, check_return, comparison_table
from benchmarks.publish_run import take_run, training_part
from simulators.fixed import FixedBackend
from simulators.protocol import Backend
from simulators.rollout import rollout
from simulators.torch_backend import TorchBackend
from spikerl_deploy import __version__, zoo
from spikerl_deploy.errors import CheckFailed, SpikerlError
from spikerl_deploy.model_card import card_markdown, overview_markdown, read_card
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy
from training.checkpoint import policy_of
from training.trainer import Trainer

NAME, RECIPE, EPISODES = "invertedpendulum-v5", "inverted-pendulum", 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 400 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    Trainer(tiny(env=PENDULUM, seed=3), folder).run()
    return folder


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the run was published to, by the better of both methods."""
    out = tmp_path_factory.mktemp("published") / "policies"
    before = contents(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "_spikerl", command_here)
        publish(Plan(run, NAME, RECIPE, out, episodes=EPISODES, choosing_episodes=3, calibration_steps=100))
    assert contents(run) == before
    return out


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run for a test to damage."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def command_here(folder: Path, *arguments: str) -> str:
    """The same command in this process, which has loaded torch already."""
    done = run_here(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def returns(backend: Backend, policy: Policy, seeds: range) -> list[float]:
    with backend.open(policy) as session:
        return list(rollout(session, PENDULUM, seeds).returns)


def evaluations(run: Path) -> dict[int, float]:
    rows = csv.DictReader((run / "metrics.csv").open())
    return {int(row["step"]): float(row["value"]) for row in rows if row["name"] == "return_mean"}


def test_what_is_published_is_found_and_whole(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "folder", lambda: published)
    assert sorted(path.name for path in published.iterdir()) == [
        "README.md", f"{NAME}.json", f"{NAME}.md", f"{NAME}.nir",
    ]  # fmt: skip
    assert zoo.path(NAME) == published / f"{NAME}.nir"
    card = zoo.card(NAME)
    assert (published / f"{NAME}.md").read_text() == card_markdown(card)
    assert (published / "README.md").read_text() == overview_markdown([card])


def test_the_returns_of_the_card_are_those_of_the_file_and_of_the_checkpoint(run: Path, published: Path) -> None:
    card, seeds = read_card(published / f"{NAME}.json"), range(EPISODES)
    backends = card["evaluation"]["backends"]
    assert backends["fixed"]["returns"] == returns(FixedBackend(), load_policy(published / f"{NAME}.nir"), seeds)
    assert backends["lava"]["returns"] == backends["fixed"]["returns"]
    trained = policy_of(run / "checkpoints" / "best.pt")
    assert backends["torch"]["returns"] == returns(TorchBackend("cpu"), trained, seeds)
    assert card["evaluation"]["seeds"] == [0, 1]
    assert card["policy"]["float_weights"]


def test_the_method_is_the_better_one_on_seeds_that_are_not_reported(published: Path) -> None:
    card = read_card(published / f"{NAME}.json")
    selection = card["quantization"]["selection"]
    assert selection["seeds"] == [100, 101, 102]
    kept = {one["method"]: one["retention"] for one in selection["candidates"]}
    assert list(kept) == ["rounding", "calibration"]
    method = card["quantization"]["method"]
    assert kept[method] == max(kept.values())
    file = load_policy(published / f"{NAME}.nir")
    found = returns(FixedBackend(), file, range(100, 103))
    float_returns = returns(TorchBackend("cpu"), file, range(100, 103))
    assert kept[method] == pytest.approx(sum(found) / sum(float_returns))


@pytest.mark.parametrize(
    ("rounding", "calibration", "method"),
    [
        ((0.99, -10.0), (0.98, -5.0), "rounding"),
        ((0.98, -5.0), (0.99, -10.0), "calibration"),
        ((1.0, 0.0), (1.0, 0.0), "rounding"),
        ((None, -10.0), (None, -5.0), "calibration"),
        ((None, -5.0), (0.9, -10.0), "rounding"),
    ],
)
def test_the_better_method_keeps_more(
    rounding: tuple[float | None, float], calibration: tuple[float | None, float], method: str
) -> None:
    named = (("rounding", rounding), ("calibration", calibration))
    candidates = [{"method": name, "retention": one[0], "mean_difference": one[1]} for name, one in named]
    assert better_method(candidates) == method


def test_the_card_tells_the_run_as_its_records_do(run: Path, published: Path) -> None:
    card = read_card(published / f"{NAME}.json")
    training, result = card["training"], json.loads((run / "result.json").read_text())
    points = evaluations(run)
    assert training["finished"] and training["stopped"] == "steps"
    assert (training["steps_asked"], training["steps_done"], training["seed"]) == (400, 400, 3)
    assert training["seconds"] == result["seconds"]
    assert training["selection"] == {
        "mean_return": pytest.approx(max(points.values())), "episodes": 2, "first_seed": 10_000, "evaluations": 2,
    }  # fmt: skip
    assert points[training["checkpoint"]["step"]] == pytest.approx(result["best_return"])
    assert training["last_ten_mean"] == pytest.approx(sum(points.values()) / len(points))
    assert training["final_return"] == pytest.approx(points[max(points)])
    assert training["settings"]["hidden"] == [8]
    assert "env" not in training["settings"] and "steps" not in training["settings"]
    assert training["beyond_recipe"]["steps"] == 400
    assert "hidden = [8]" in card_markdown(card).replace("\\", "")
    assert card["reproduce"][0].startswith(f"spikerl train --recipe {RECIPE} --seed 3 --set steps=400 --set hidden=8 ")


def test_nothing_published_names_a_path_of_this_machine(run: Path, published: Path) -> None:
    for path in published.iterdir():
        text = json.dumps(load_policy(path).provenance) if path.suffix == ".nir" else path.read_text()
        for place in (run, published, Path.cwd(), Path.home(), Path("/tmp")):
            assert f"{place}/" not in text, path.name
    command = load_policy(published / f"{NAME}.nir").provenance["command"]
    assert command[:3] in (["spikerl", "export", "run"], ["spikerl", "quantize", "run"])
    with pytest.raises(SpikerlError, match="'/root/secret/run' is a path"):
        refuse_paths({"command": ["spikerl", "train", "--out=/root/secret/run"]})
    refuse_paths({"unit": "g CO2eq/kWh", "id": "loihi1/synops", "url": "https://example.org/a/b", "or": "and/or"})


def test_nothing_is_overwritten_without_force(run: Path, published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(published)
    assert main([str(run), "--name", NAME, "--recipe", RECIPE, "--out", str(published)]) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert contents(published) == before


@pytest.fixture(scope="module")
def bare(run: Path, published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """The same run, not finished yet, published without float weights beside the card of the finished one."""
    folder = tmp_path_factory.mktemp("unfinished")
    unfinished = Path(shutil.copytree(run, folder / "run"))
    for name in ("result.json", "emissions.json"):
        (unfinished / name).unlink(missing_ok=True)
    with (unfinished / "metrics.csv").open("a") as stream:
        stream.write("401,99")  # half a line, as while it is written
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(publishing, "_spikerl", command_here)
        code = main(
            [str(unfinished), "--name", NAME, "--recipe", RECIPE, "--method", "rounding", "--no-trained",
             "--episodes", str(EPISODES), "--out", str(folder / "new"), "--require-return", "0.5",
             "--compare-with", str(published / f"{NAME}.json")]
        )  # fmt: skip
    return folder / "new", printed.getvalue(), code


def test_a_command_that_fails_ends_the_publishing(tmp_path: Path) -> None:
    assert publishing._spikerl(tmp_path, "--version") == f"spikerl {__version__}\n"
    with pytest.raises(SpikerlError, match="spikerl inspect none ended with exit code 2"):
        publishing._spikerl(tmp_path, "inspect", "none")


def test_an_unfinished_run_is_published_and_said_to_be_one(bare: tuple[Path, str, int]) -> None:
    page = (bare[0] / f"{NAME}.md").read_text()
    assert page.splitlines()[2].startswith("> **Unfinished: the run was asked for 400 environment steps and had done ")
    training = read_card(bare[0] / f"{NAME}.json")["training"]
    assert (training["finished"], training["stopped"], training["energy"]) == (False, None, None)
    assert training["steps_done"] == 400


def test_without_float_weights_retention_is_still_that_against_the_checkpoint(
    run: Path, bare: tuple[Path, str, int]
) -> None:
    card, policy = read_card(bare[0] / f"{NAME}.json"), load_policy(bare[0] / f"{NAME}.nir")
    assert policy.trained is None and policy.bits == 8
    assert card["evaluation"]["float_policy"] == "in the checkpoint"
    trained = policy_of(run / "checkpoints" / "best.pt")
    evaluation, seeds = card["evaluation"], range(EPISODES)
    assert evaluation["backends"]["torch"]["returns"] == returns(TorchBackend("cpu"), trained, seeds)
    assert evaluation["backends"]["fixed"]["returns"] == returns(FixedBackend(), policy, seeds)
    assert "--no-trained" in card["reproduce"][1]
    assert card["quantization"] == {"method": "rounding", "bits": 8, "selection": None}
    assert "carries no float weights" in card_markdown(card)


def test_a_new_card_is_printed_beside_the_shipped_one(published: Path, bare: tuple[Path, str, int]) -> None:
    folder, text, code = bare
    assert code == 0
    shipped, new = (read_card(place / f"{NAME}.json") for place in (published, folder))
    table = comparison_table(shipped, new)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["float return"][0] == rows["float return"][1]
    assert "the same" in rows["sha256, checkpoint"][1]
    assert "differs" in rows["sha256, file"][1]
    same = shipped["policy"]["content_sha256"] == new["policy"]["content_sha256"]
    assert same == (shipped["quantization"]["method"] == "rounding")
    assert "environment steps" in text and "retention on lava" in text


def test_a_required_share_of_the_return_decides_the_exit_code(published: Path) -> None:
    card = read_card(published / f"{NAME}.json")
    base = card["evaluation"]["backends"]["torch"]["mean_return"]
    lower = json.loads(json.dumps(card))
    lower["evaluation"]["backends"]["torch"]["mean_return"] = 0.89 * base
    check_return(card, lower, 0.88)
    with pytest.raises(CheckFailed, match=r"is below 0.9 times"):
        check_return(card, lower, 0.9)
    with pytest.raises(SpikerlError, match="is for InvertedPendulum-v5, this run for Ant-v5"):
        check_comparable(card, "Ant-v5", None)
    lower["evaluation"]["backends"]["torch"]["mean_return"] = -1.0
    with pytest.raises(SpikerlError, match="not positive"):
        check_comparable(lower, PENDULUM, 0.9)


def test_a_file_that_is_too_large_is_refused_with_by_how_much(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "BYTES_MAX", 1000)
    monkeypatch.setattr(publishing, "_spikerl", command_here)
    with pytest.raises(SpikerlError, match=r"bytes, [\d,]+ more than the 1,000 of a shipped policy") as error:
        publish(Plan(run, NAME, RECIPE, tmp_path / "out", method="rounding"))
    assert error.value.hint == "--no-trained drops the float weights"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../x"}, "no name of a policy"),
        ({"name": "Hopper-v5"}, "no name of a policy"),
        ({"recipe": "jumper"}, "unknown recipe 'jumper'"),
        ({"run": Path("none")}, "'none' is no run folder"),
    ],
)
def test_what_cannot_be_published_is_refused_first(
    run: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    plan = {"run": run, "name": NAME, "recipe": RECIPE, "out": tmp_path / "out"} | change
    with pytest.raises(SpikerlError, match=message):
        publish(Plan(**plan))
    assert not (tmp_path / "out").exists()


def test_a_run_without_an_evaluation_has_nothing_to_publish(copy: Path, tmp_path: Path) -> None:
    (copy / "checkpoints" / "best.pt").unlink()
    with pytest.raises(SpikerlError, match="has no best checkpoint"):
        take_run(copy, tmp_path / "run")


def test_metrics_that_lag_behind_the_checkpoint_are_completed_by_it(copy: Path, tmp_path: Path) -> None:
    whole = training_part(take_run(copy, tmp_path / "whole"), RECIPE)
    step = whole["checkpoint"]["step"]
    lines = (copy / "metrics.csv").read_text().splitlines(keepends=True)
    (copy / "metrics.csv").write_text(
        "".join(line for line in lines if not line.startswith(f"{step},") or "eval" not in line)
    )
    assert training_part(take_run(copy, tmp_path / "lagging"), RECIPE)["selection"] == whole["selection"]


def test_a_checkpoint_that_is_not_the_best_of_its_metrics_is_refused(copy: Path, tmp_path: Path) -> None:
    with (copy / "metrics.csv").open("a") as stream:
        stream.write("400,1e6,1,eval,return_mean,1e6\n")
    with pytest.raises(SpikerlError, match="it is not the best of this run"):
        training_part(take_run(copy, tmp_path / "run"), RECIPE)


def test_one_seed_of_several_is_published_by_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "both"
    Trainer(tiny(env=PENDULUM, seed=5, seeds=2, steps=120, eval_every=60), run).run()
    with pytest.raises(SpikerlError, match="holds 2 seeds") as error:
        take_run(run, tmp_path / "run")
    assert "the best evaluation is that of" in str(error.value.hint)
    taken = take_run(run / "seed-6", tmp_path / "run")
    assert (taken.seed, taken.source) == (6, "run/seed-6")
    assert taken.checkpoint.read_bytes() == (run / "seed-6" / "checkpoints" / "best.pt").read_bytes()
    part = training_part(taken, RECIPE)
    assert (part["seed"], part["seeds"], part["steps_done"]) == (6, 2, 120)
    assert part["selection"]["mean_return"] == pytest.approx(max(evaluations(run / "seed-6").values()))
