"""The tables of the returns against numbers computed here, and README, docs and figures against the committed files."""

from __future__ import annotations

import importlib.metadata
import re
import statistics
from copy import deepcopy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from returns_support import EVERY, document, entry, noisy_curve
from support import ROOT

from benchmarks.returns import BEGIN, END, check_recipe
from benchmarks.returns_docs import ablation_table, runs_table, search_table
from benchmarks.returns_document import RETURNS, TASKS, read
from benchmarks.returns_figure import FIGURES, figures
from benchmarks.returns_notes import notes
from benchmarks.returns_rows import best, read_published, rows
from benchmarks.returns_run import recipe_settings
from benchmarks.returns_table import docs_text, readme_text, results_table, unfinished
from spikerl_deploy.errors import SpikerlError

CURVE = noisy_curve(100, 3000.0)
PUBLISHED = read_published(ROOT / "benchmarks" / "published_returns.toml")


def cells(table: str, start: str) -> list[list[str]]:
    """The cells of the rows whose first cells begin so."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith(f"| {start}")]
    return [[cell.strip() for cell in line] for line in lines]


def test_a_row_of_several_seeds_is_mean_and_sample_deviation() -> None:
    curves = {seed: noisy_curve(100, 3000.0 + 100 * seed, seed) for seed in range(3)}
    ((task, policy, seeds, steps, maximum, of_mean, final, last, reference, share, ann),) = cells(
        results_table(document(entry(curves=curves)), PUBLISHED), "Hopper"
    )
    tops = [max(mean for mean, _ in curve) for curve in curves.values()]
    ends = [curve[-1][0] for curve in curves.values()]
    lasts = [statistics.fmean(mean for mean, _ in curve[-10:]) for curve in curves.values()]
    assert (task, policy, seeds, steps) == ("Hopper-v5", "spiking", "3", "1,000,000")
    for cell, values in ((maximum, tops), (final, ends), (last, lasts)):
        assert cell == f"{statistics.fmean(values):,.0f} ± {statistics.stdev(values):,.0f}"
    together = zip(*([mean for mean, _ in curve] for curve in curves.values()), strict=True)
    assert of_mean == f"{max(statistics.fmean(means) for means in together):,.0f}"
    assert (reference, ann) == ("3,592, tdBN", "3,410")
    assert share == f"{statistics.fmean(tops) / 3592:.1%}"


def test_one_seed_reads_as_one_seed() -> None:
    ((_, _, seeds, _, maximum, _, final, last, *_),) = cells(results_table(document(entry()), PUBLISHED), "Hopper")
    assert seeds == "1" and "±" not in maximum + final + last


def test_an_unfinished_run_says_how_far_it_is_and_of_how_many_evaluations_its_mean_is() -> None:
    made = document(entry(curves={0: noisy_curve(7, 100.0)}))
    ((_, _, _, steps, _, _, _, last, *_),) = cells(results_table(made, PUBLISHED), "Hopper")
    assert steps == "unfinished at 70,000 of 1,000,000 steps" and last.endswith(" (of 7)")
    lines = unfinished(made).splitlines()
    assert "- Hopper-v5, spiking, seed 0: unfinished at 70,000 of 1,000,000 steps." in lines
    assert "- Ant-v5, spiking: not begun." in lines and len(lines) == 5


def test_seeds_that_have_not_gone_equally_far_are_never_one_mean() -> None:
    counts = {0: 100, 1: 100, 2: 40, 3: 40, 4: 60}
    entries = [entry(curves={seed: noisy_curve(count, 3000.0, seed)}) for seed, count in counts.items()]
    found = rows(document(*entries), "hopper", "recipe")
    assert [(row.seeds, row.steps) for row in found] == [
        ([0, 1], "1,000,000"),
        ([4], "unfinished at 600,000 of 1,000,000 steps"),
        ([2, 3], "unfinished at 400,000 of 1,000,000 steps"),
    ]


def test_runs_that_ended_early_at_their_return_tell_their_steps() -> None:
    early = {"status": "stop_return", "settings": {"stop_return": 90.0}}
    entries = [entry(curves={0: [(1.0, 0.0), (95.0, 0.0)]}, **early), entry(curves={1: [(99.0, 0.0)]}, **early)]
    (row,) = rows(document(*entries), "hopper", "recipe")
    assert row.steps == "10,000 to 20,000, ended at a mean of 90"


def test_the_dense_twin_stands_below_and_tasks_without_runs_stand_there_too() -> None:
    table = results_table(document(entry("ant"), entry("ant", "mlp")), PUBLISHED)
    lines = table.splitlines()[2:]
    assert [line.split("|")[1:3] for line in lines] == [
        *([f" {TASKS[task]} ", " spiking "] for task in TASKS),
        ["  ", " dense ANN "],
    ]
    assert sum("none yet" in line for line in lines) == 4


def test_bf16_in_some_seeds_of_a_row_is_told() -> None:
    entries = [
        entry(curves={0: noisy_curve(100, 1.0)}),
        entry(curves={1: noisy_curve(100, 1.0)}, settings={"bf16": True}),
    ]
    assert "seed 1 with BF16, seed 0 without" in readme_text(document(*entries), PUBLISHED)
    assert "BF16" not in readme_text(document(entries[0]), PUBLISHED)
    assert "BF16" not in readme_text(document(entries[1]), PUBLISHED)
    assert "bf16 = true" in runs_table(document(*entries))


def test_an_ablation_is_compared_at_equal_seeds_and_steps() -> None:
    base = {seed: noisy_curve(100, 3000.0, seed) for seed in (0, 1, 2)}
    ours = {seed: noisy_curve(60, 2000.0, seed + 9) for seed in (1, 2)}
    changed = entry(group="ablation", label="norm", curves=ours, settings={"synaptic_norm": "batch", "compile": "on"})
    ((task, label, against, differ, seeds, step, without, with_it, final, final_with, change),) = cells(
        ablation_table(document(entry(curves=base), changed)), "Hopper"
    )
    tops = [[max(mean for mean, _ in curves[seed][:60]) for seed in (1, 2)] for curves in (base, ours)]
    finals = [[curves[seed][59][0] for seed in (1, 2)] for curves in (base, ours)]
    assert (task, label, against, seeds, step) == ("Hopper-v5", "norm", "the recipe", "2", "600,000 of 1,000,000")
    assert differ == "synaptic\\_norm: the default to batch"
    for cell, values in zip((without, with_it, final, final_with), (*tops, *finals), strict=True):
        assert cell == f"{statistics.fmean(values):,.0f} ± {statistics.stdev(values):,.0f}"
    assert change == f"{statistics.fmean(tops[1]) / statistics.fmean(tops[0]) - 1:+.1%}"


def test_an_ablation_tells_the_seeds_of_a_setting_that_differs_in_some_alone() -> None:
    base = [entry(curves={0: CURVE}), entry(curves={1: CURVE, 2: CURVE}, settings={"bf16": True})]
    changed = entry(
        group="ablation", label="norm", curves=dict.fromkeys(range(3), CURVE),
        settings={"synaptic_norm": "batch", "bf16": True},
    )  # fmt: skip
    (row,) = cells(ablation_table(document(*base, changed)), "Hopper")
    assert row[3] == "bf16: the default to true (seed 0); synaptic\\_norm: the default to batch"


def test_the_maximum_of_the_mean_curve_is_told_beside_the_mean_of_the_maxima() -> None:
    curves = {0: [(10.0, 0.0), (40.0, 0.0), (30.0, 0.0)], 1: [(50.0, 0.0), (20.0, 0.0), (40.0, 0.0)]}
    made = document(*(entry(curves={seed: one}, steps_asked=30_000, status="steps") for seed, one in curves.items()))
    (row,) = cells(results_table(made, PUBLISHED), "Hopper")
    assert row[4:6] == ["45 ± 7", "35"]


def test_runs_of_more_ranks_are_no_seeds_of_the_recipe() -> None:
    several = entry(curves={1: CURVE}, machine={"processor": "P", "gpu": None, "threads": 1, "ranks": 4})
    with pytest.raises(SpikerlError, match="ranks = 4, recipe 'hopper' has 1"):
        check_recipe(several | {"settings": recipe_settings("hopper")["settings"]})
    with pytest.raises(SpikerlError, match="differ in ranks: 1 and 4"):
        document(entry(), several)
    ablation = entry(group="ablation", label="norm", curves={1: CURVE}, machine=several["machine"])
    with pytest.raises(SpikerlError, match="differ in ranks, and cannot be compared"):
        document(entry(curves={1: CURVE}), ablation)


def test_tries_stand_with_the_reason_why_they_were_left_and_not_in_the_main_table() -> None:
    made = document(entry(group="search", label="fast", note="It fell.", settings={"actor_lr": 3e-4}))
    ((_, policy, tried, settings, why, *_),) = cells(search_table(made), "Hopper")
    assert (policy, tried, settings, why) == ("spiking", "fast", "actor\\_lr = 0.0003", "It fell.")
    assert results_table(made, PUBLISHED).count("none yet") == 5


def test_a_seed_on_which_the_recipe_was_chosen_says_so_in_its_own_row() -> None:
    tries = [entry(group="search", label="fast"), entry(group="search", label="slow", curves={0: CURVE, 1: CURVE}),
             entry(group="search", label="dense", actor="mlp", curves={2: CURVE})]  # fmt: skip
    ours = [entry(curves=dict.fromkeys((0, 2), CURVE)), entry("ant"), entry(group="mlp")]
    for text in (readme_text, docs_text):
        told = [line for line in text(document(*ours, *tries), PUBLISHED).splitlines() if "was chosen on" in line]
        assert told == ["- Hopper-v5, spiking: the recipe was chosen on seed 0, out of 3 settings tried there, "
                        "which biases its returns upwards."]  # fmt: skip
        assert "was chosen on" not in text(document(*ours), PUBLISHED)
        assert "was chosen on" not in text(document(entry(curves={7: CURVE}), *tries), PUBLISHED)


def test_tasks_without_a_search_say_so_and_whose_settings_they_have() -> None:
    lines = search_table(
        document(
            entry(settings={"actor_lr": 1e-4}),
            entry(group="search", label="fast"),
            entry("walker2d", settings={"actor_lr": 1e-4, "bf16": True, "compile": "on"}),
            entry("half-cheetah", settings={"compile": "on"}),
            entry("inverted-double-pendulum", settings={"start_steps": 5}),
        )
    ).splitlines()
    assert [line for line in lines if line.startswith("-")] == [
        "- InvertedDoublePendulum-v5: no try to find the recipe is on record.",
        "- Walker2d-v5: no try to find the recipe is on record; it has the settings of Hopper-v5.",
        "- HalfCheetah-v5: no try to find the recipe is on record; it has the defaults.",
    ]


def test_the_notes_tell_the_episodes_of_each_task_and_the_table_of_runs_the_evaluations() -> None:
    often = {"every": EVERY, "episodes": 50, "seed": 10_000}
    made = document(entry("inverted-double-pendulum", evaluation=often), entry(), entry("ant", curves={0: CURVE[:7]}))
    assert "means of 10 episodes (50 on InvertedDoublePendulum-v5) without" in readme_text(made, PUBLISHED)
    assert "means of 10 episodes without" in readme_text(document(entry()), PUBLISHED)
    table = runs_table(made)
    told = [cells(table, start)[0][5] for start in ("Inverted", "Hopper", "Ant")]
    assert told == ["100 of 50 episodes", "100 of 10 episodes", "7 of 10 episodes"]


def test_a_run_that_ends_at_its_return_says_that_its_last_evaluation_is_selected() -> None:
    early = entry(curves={0: [(1.0, 0.0), (95.0, 0.0)]}, status="stop_return", settings={"stop_return": 90.0})
    told = (
        "- Hopper-v5, spiking: training ends at the first evaluation of 90 or more, so its last one is selected, too."
    )
    assert told in readme_text(document(early), PUBLISHED).splitlines()
    assert "is selected, too" not in readme_text(document(entry()), PUBLISHED)


def test_the_table_of_the_readme_is_that_of_the_docs_without_detail() -> None:
    made = document(entry(), entry(group="mlp"))
    short, full = (
        [
            line.strip("|").split("|")
            for line in re.findall(r"(?:^\|.*\n)+", text(made, PUBLISHED), re.M)[0].splitlines()
        ]
        for text in (readme_text, docs_text)
    )
    left_out = [index for index, name in enumerate(full[0]) if name not in short[0]]
    assert [full[0][index].strip() for index in left_out] == [
        "maximum of the mean curve", "final", "share of published",
    ]  # fmt: skip
    assert short == [[cell for index, cell in enumerate(line) if index not in left_out] for line in full]


def test_the_notes_name_the_source_of_the_table_and_that_it_is_only_quoted() -> None:
    told = next(line for line in readme_text(document(), PUBLISHED).splitlines() if line.startswith("- Published"))
    assert "[arXiv:2509.23791](https://arxiv.org/abs/2509.23791)" in told and "v4 tasks" in told
    assert "quoted, not checked" in told
    assert "- v5 differs from v4 in 4 of the 5 tasks (below)." in notes(document(), PUBLISHED, "below").splitlines()
    other = deepcopy(PUBLISHED)
    for name, source in other["sources"].items():
        source["compared"] = name == "tianshou"
    text = notes(document(), other, "below")
    assert "arXiv:2509.23791" not in text and "quoted" not in text
    assert other["sources"]["tianshou"]["statistic"] in text and other["sources"]["tianshou"]["url"] in text


def test_a_published_number_that_other_sources_far_exceed_is_told() -> None:
    told = [line for line in notes(document(), PUBLISHED, "below").splitlines() if "other sources have" in line]
    (line,) = told
    assert line.startswith("- InvertedDoublePendulum-v5: where the table has 7,503 for the published ANN")
    assert "9,349 (Tianshou" in line and "9,338 (Fujimoto" in line


def test_a_note_of_a_recipes_run_stands_behind_its_versions() -> None:
    (row,) = cells(runs_table(document(entry(note="Resumed with a draft."))), "Hopper")
    assert "torch 2.0. Resumed with a draft." in row


def test_energy_and_carbon_carry_their_kind_and_are_told_once_for_seeds_trained_together() -> None:
    made = document(entry(curves={seed: noisy_curve(100, 1.0) for seed in (0, 1)}))
    first, second = cells(runs_table(made), "Hopper")
    assert "3 kJ, modelled (a meter)" in first and "1.0 g CO2eq, modelled (400 g CO2eq/kWh, a table)" in first
    assert second.count("as above") == 4


def test_the_best_published_number_is_of_its_kind_and_of_a_source_to_be_compared_with() -> None:
    table = {task: (best(PUBLISHED, task, "spiking"), best(PUBLISHED, task, "ann")) for task in TASKS}
    assert table == {
        "inverted-double-pendulum": ((9352, "ILC-SAN"), (7503, "ANN")),
        "hopper": ((3592, "tdBN"), (3410, "ANN")),
        "walker2d": ((4537, "TABN"), (4340, "ANN")),
        "half-cheetah": ((9784, "TABN"), (10857, "ANN")),
        "ant": ((5584, "ILC-SAN"), (4770, "ANN")),
    }


def test_every_published_source_says_what_was_checked_and_no_isaac_number_is_compared_with() -> None:
    for name, source in PUBLISHED["sources"].items():
        assert len(source["checked"]) > 15 and source["url"].startswith("https://"), name
    assert {name for name, source in PUBLISHED["sources"].items() if source["compared"]} == {"care-bn"}


@pytest.mark.parametrize(
    ("old", "new"),
    [('kind = "ann"', 'kind = "dense"'), ("hopper = 3410", 'hopper = "3410"'), ('checked = "Read in that file."', ""),
     ("read = false", 'read = "no"'),
     ("walker2d = 3964", "walker = 3964"), ('source = "tianshou"', 'source = "nobody"'), ("[versions]", "[other]")],
)  # fmt: skip
def test_published_numbers_that_are_not_whole_are_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (ROOT / "benchmarks" / "published_returns.toml").read_text()
    assert old in text
    (tmp_path / "published.toml").write_text(text.replace(old, new))
    with pytest.raises(SpikerlError, match="published"):
        read_published(tmp_path / "published.toml")


def committed() -> dict[str, Any]:
    return read(RETURNS)


@pytest.mark.parametrize(("name", "text"), [("README.md", readme_text), ("docs/returns.md", docs_text)])
def test_the_committed_documents_say_what_the_committed_results_give(name: str, text: Any) -> None:
    """Mend it with: python -m benchmarks.returns write."""
    _, begin, rest = (ROOT / name).read_text(encoding="utf-8").partition(BEGIN)
    found, end, _ = rest.partition(END)
    assert begin and end, f"{name} lacks the markers"
    assert found.strip() == text(committed(), PUBLISHED).strip()


def test_the_committed_figures_show_the_committed_results() -> None:
    """Mend it with: python -m benchmarks.returns write."""
    pinned = re.search(r"^matplotlib==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    for path, wanted in zip(FIGURES, figures(committed(), PUBLISHED), strict=True):
        found = (ROOT / path).read_text(encoding="utf-8")
        if importlib.metadata.version("matplotlib") != pinned[1]:  # which may place things a little elsewhere
            wanted, found = texts_of(wanted), texts_of(found)
        assert found == wanted


def texts_of(svg: str) -> str:
    """What is written in a figure, and how many points it draws."""
    root = ElementTree.fromstring(svg)
    return "\n".join([*("".join(node.itertext()) for node in root.iter() if node.tag.endswith(("text", "desc"))),
                      str(svg.count("L"))])  # fmt: skip


def test_the_committed_runs_of_a_recipe_and_of_its_dense_twin_have_its_settings() -> None:
    for run in committed()["runs"]:
        if run["group"] in ("recipe", "mlp"):
            check_recipe(run)
