"""The Markdown summary of a CI job."""

from __future__ import annotations

import re
from typing import Any

import sample

from spikerl_deploy.report.markdown import markdown
from spikerl_deploy.report.table import number


def rows(text: str) -> list[list[str]]:
    """Cells of every table row; an escaped pipe divides nothing."""
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_a_deployment_is_summed_up_in_a_headline_table() -> None:
    document: dict[str, Any] = sample.report()
    deployment = document["deployments"][0]
    entry = deployment["backends"]["lava"]
    text = markdown(document)
    assert text.startswith("# HalfCheetah-v5 on lava\n\n| | | |\n| --- | ---: | --- |\n| Mean return | **")
    facts = {row[0].strip(): row[1].strip() for row in rows(text)[2:6]}
    assert facts["Mean return"] == f"**{number(entry['mean_return'])}**"
    assert facts["Retention"] == f"**{deployment['comparison']['retention']:.3f}**"
    assert facts["Energy"].endswith("µJ** (modelled)")
    assert "The energies leave out: encoder and decoder on the host" in text


def test_tables_are_whole_whatever_the_texts_hold() -> None:
    document = sample.full_report()
    hostile = "a|b\n\n<script>alert(1)</script> `x` [y](javascript:1) *z* \\| 🦾"
    document["title"] = hostile
    document["warnings"] = [hostile]
    for deployment in document["deployments"]:
        deployment["title"] = hostile
        for item in deployment["backends"]["lava"]["energy"]["figures"]:
            item["title"] = hostile
    text = markdown(document)
    assert "<script" not in text
    summaries = [line for line in text.splitlines() if "<summary>" in line]
    assert all(line.endswith("</summary>") for line in summaries), "Markdown is not read within it"
    assert not any(re.search(r"(?<!\\)\]\(", line) for line in text.splitlines() if line not in summaries), "a link"
    block: list[int] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(len(rows(line)[0]))
        else:
            assert len(set(block)) <= 1
            block = []
    assert text.count("<details>") == text.count("</details>") == 5


def test_everything_in_a_report_is_summed_up() -> None:
    document = sample.full_report()
    text = markdown(document)
    assert "> **Warning:** the energy of training is modelled, not measured" in text
    assert "**Conformance of half-cheetah-8-bit.nir: failed**" in text
    for deployment in document["deployments"]:
        for item in deployment["backends"]["lava"]["energy"]["figures"]:
            assert any(
                [cell.strip() for cell in row[2:5]] == [number(item["low"]), number(item["high"]), item["kind"]]
                for row in rows(text)
            )
    assert "Speedup, Greenup and Powerup" in text
    assert "Training runs" in text
    assert len(text) < 100_000  # GitHub takes a summary of 1 MiB
