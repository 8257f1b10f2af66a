"""Publishing a policy: a tiny run becomes a shipped file and a card whose every number can be found again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from publish_support import EMISSIONS, RECIPE, evaluations
from support import run_here
from training_support import PENDULUM

from benchmarks import publish as publishing
from benchmarks import publish_card
from benchmarks.publish import Plan, better_method, main, publish
from benchmarks.publish_card import refuse_paths
from benchmarks.publish_compare import check_comparable, check_return, comparison_table
from benchmarks.publish_pages import main as pages
from simulators.fixed import FixedBackend
from simulators.protocol import Backend
from simulators.rollout import rollout
from simulators.torch_backend import TorchBackend
from spikerl_deploy import __version__, zoo
from spikerl_deploy.errors import CheckFailed, SpikerlError
from spikerl_deploy.files import write_json
from spikerl_deploy.model_card import card_markdown, overview_markdown, read_card
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy
from training.checkpoint import policy_of

NAME, EPISODES = "invertedpendulum-v5", 2


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
    calibrated = {"first_seed": 20_000, "control_steps": 100}
    assert card["quantization"]["calibration"] == (calibrated if method == "calibration" else None)
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
        "mean_return": pytest.approx(max(points.values())), "episodes": 2, "first_seed": 10_000,
        "evaluations": 2, "of_seeds": 1,
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
    (unfinished / "result.json").unlink()
    write_json(unfinished / "emissions.json", EMISSIONS)  # of an earlier stretch
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
    assert (training["finished"], training["stopped"]) == (False, None)
    assert training["energy"] is training["carbon"] is None
    assert "training_energy" not in json.dumps(load_policy(bare[0] / f"{NAME}.nir").provenance)
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
    assert card["quantization"] == {"method": "rounding", "bits": 8, "calibration": None, "selection": None}
    assert "carries no float weights" in card_markdown(card)


def test_a_new_card_is_printed_beside_the_shipped_one(published: Path, bare: tuple[Path, str, int]) -> None:
    folder, text, code = bare
    assert code == 0
    shipped, new = (read_card(place / f"{NAME}.json") for place in (published, folder))
    table = comparison_table(shipped, new)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["float return"][0] == rows["float return"][1]
    assert rows["seed"] == ("3", "3")
    assert rows["settings beyond the recipe"][0].startswith("steps = 400, hidden = [8], ")
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
        check_comparable(card, "Ant-v5", None, EPISODES)
    lower["evaluation"]["backends"]["torch"]["mean_return"] = -1.0
    with pytest.raises(SpikerlError, match="not positive"):
        check_comparable(lower, PENDULUM, 0.9, EPISODES)
    check_comparable(card, PENDULUM, None, EPISODES + 1)
    with pytest.raises(SpikerlError, match="--episodes 3: a share of the shipped return over 2 episodes") as error:
        check_comparable(card, PENDULUM, 0.9, EPISODES + 1)
    assert (error.value.hint or "").startswith("--episodes 2")


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
        ({"name": "hopper-v5"}, "'hopper-v5' is no name of a policy for InvertedPendulum-v5"),
        ({"recipe": "hopper"}, "recipe 'hopper' is for Hopper-v5, the run was of InvertedPendulum-v5"),
        ({"episodes": 105}, "seed 100 would be reported and has a part in choosing the quantization, seeds 100 to 199"),
        ({"episodes": 20_000, "method": "rounding"}, "part in choosing the checkpoint, seeds 10000 to 10001"),
        ({"of_seeds": 0}, "--of-seeds 0 is less than the 1 seeds of the run"),
        ({"recipe": "jumper"}, "unknown recipe 'jumper'"),
        ({"run": Path("none")}, "'none' is no run folder"),
    ],
)
def test_what_cannot_be_published_is_refused_first(
    run: Path, tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_spikerl", None)  # nothing long has begun
    plan = {"run": run, "name": NAME, "recipe": RECIPE, "out": tmp_path / "out"} | change
    with pytest.raises(SpikerlError, match=message):
        publish(Plan(**plan))
    assert not (tmp_path / "out").exists()


def test_integers_that_were_not_simulated_are_not_shipped(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_bits(folder: Path, *arguments: str) -> str:
        bare = "--no-trained" in arguments
        return command_here(folder, *("7" if bare and one == "8" else one for one in arguments))

    monkeypatch.setattr(publishing, "_spikerl", other_bits)
    with pytest.raises(SpikerlError, match="what was simulated is not what would be shipped"):
        publish(Plan(run, NAME, RECIPE, tmp_path / "out", method="rounding", trained=False))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["publish", "publish_card"])
def test_a_path_in_a_run_is_not_published(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Each of both looks, the other one blind: at the file before it is simulated, and at the card at its end."""
    blind = {"publish": publish_card, "publish_card": publishing}[place]
    monkeypatch.setattr(blind, "refuse_paths", lambda document: None)
    monkeypatch.setattr(publishing, "_spikerl", command_here)
    monkeypatch.setattr("spikerl_deploy.manifest.package_versions", lambda: {"torch": "of /home/someone/secret"})
    with pytest.raises(SpikerlError, match="'/home/someone/secret' is a path"):
        publish(Plan(run, NAME, RECIPE, tmp_path / "out", method="rounding", episodes=EPISODES))
    assert not (tmp_path / "out").exists()


def test_what_is_compared_with_says_how_the_new_one_is_made(
    run: Path, published: Path, bare: tuple[Path, str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plans = []
    monkeypatch.setattr(publishing, "publish", lambda plan, *_: plans.append(plan) or read_card(card))
    base = [str(run), "--name", NAME, "--recipe", RECIPE, "--out", str(tmp_path)]
    for place, extra, expected in (
        (bare[0], [], ("rounding", 8, False, EPISODES)),
        (published, [], (read_card(published / f"{NAME}.json")["quantization"]["method"], 8, True, EPISODES)),
        (bare[0], ["--method", "best", "--trained", "--bits", "4", "--episodes", "7"], ("best", 4, True, 7)),
    ):
        card = place / f"{NAME}.json"
        assert main([*base, "--compare-with", str(card), *extra]) == 0
        assert (plans[-1].method, plans[-1].bits, plans[-1].trained, plans[-1].episodes) == expected
    assert main([*base, "--no-trained", "--of-seeds", "4"]) == 0
    assert (plans[-1].method, plans[-1].bits, plans[-1].trained, plans[-1].of_seeds) == ("best", 8, False, 4)
    assert plans[-1].episodes == 10


def test_a_readme_that_is_no_overview_is_never_replaced(
    run: Path, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pages([str(tmp_path)]) == 2
    assert "no card of a policy lies in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    for path in published.iterdir():
        shutil.copy(path, tmp_path)
    overview = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(f"{overview.splitlines()[0]}\nold")
    assert pages([str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text() == overview
    (tmp_path / "README.md").write_text("# My project\n")
    assert pages([str(tmp_path)]) == 2
    assert "is no overview of policies and is not replaced" in capsys.readouterr().err
    with pytest.raises(SpikerlError, match="no overview of policies"):
        publish(Plan(run, NAME, RECIPE, tmp_path, force=True))
    assert (tmp_path / "README.md").read_text() == "# My project\n"
