"""`spikerl policies`: the policies that ship with spikerl, their cards, and whether their files are whole."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.common import Format, FormatOption, complete_shipped, console, print_json, say
from spikerl_deploy.errors import CheckFailed, SpikerlError

if TYPE_CHECKING:
    from rich.console import Console

    from spikerl_deploy.report.table import Table

LIST_WIDTH = 140  # of the list where there is no terminal: wide enough that no name is folded
LIST_SCHEMA, CHECK_SCHEMA = "spikerl.policies/1", "spikerl.policies-check/1"


def policies(
    name: Annotated[
        str | None,
        typer.Argument(help="Print the card of this one.", autocompletion=complete_shipped, show_default=False),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Hold every file against its card's hash; exit 1 if one differs.")
    ] = False,
    output: FormatOption = Format.human,
) -> None:
    """List the policies that ship with spikerl, or print the card of one."""
    from spikerl_deploy import zoo

    if check:
        _check([name] if name is not None else zoo.names(), output)
        return
    if name is not None:
        card = zoo.card(name)
        print_json(card) if output is Format.json else _print_card(card)
        return
    cards = [zoo.card(one) for one in zoo.names()]
    if output is Format.json:
        print_json({"schema": LIST_SCHEMA, "policies": cards})
        return
    if not cards:
        console().print("no policy ships with this installation")
        return
    _print_list(cards)
    say(f"next: spikerl simulate {cards[0]['name']} --backend lava")


def _check(names: list[str], output: Format) -> None:
    """A line for each policy; raises what the exit code says."""
    from spikerl_deploy import zoo

    results: list[dict[str, Any]] = []
    for given in names:
        name = zoo.find(given)
        if name is None:
            zoo.card(given)  # says which there are
        assert name is not None
        try:
            card = zoo.card(name)
            file = zoo.folder() / card["policy"]["file"]
            problem = zoo.mismatch(card, file) or zoo.untruth(card, file)
        except SpikerlError as error:
            problem = error.message
        results.append({"name": name, "ok": problem is None, "problem": problem})
    if names == zoo.names():
        results += [{"name": file, "ok": False, "problem": f"{file} has no card"} for file in zoo.strays()]
    if output is Format.json:
        print_json({"schema": CHECK_SCHEMA, "policies": results})
    else:
        out = console()
        for one in results:
            out.print(f"{'ok' if one['ok'] else 'FAILED':6}  {one['name']}  {one['problem'] or ''}".rstrip(),
                      soft_wrap=True)  # fmt: skip
        if not results:
            out.print("no policy ships with this installation")
    bad = [one for one in results if not one["ok"]]
    if bad:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise CheckFailed(f"{bad[0]['name']}: {bad[0]['problem']}{others}", zoo.REINSTALL_HINT)


def _print_list(cards: list[dict[str, Any]]) -> None:
    """The overview without its last column, which is said of those alone whose training is not finished."""
    from spikerl_deploy.model_card import remarks
    from spikerl_deploy.model_card_tables import overview_table

    out, table = console(), overview_table(cards)
    if not sys.stdout.isatty():
        out.width = LIST_WIDTH
    rows = tuple(row[:-1] for row in table.rows)
    _print_table(out, replace(table, columns=table.columns[:-1], rows=rows), ("name", "retention"))
    for card in cards:
        for line in remarks(card):
            out.print(f"{card['name']}: {line}", soft_wrap=True)


def _print_card(card: dict[str, Any]) -> None:
    """The card in words."""
    from spikerl_deploy.model_card import remarks, sections, summary

    out = console()
    if not sys.stdout.isatty():
        out.width = LIST_WIDTH
    out.print(card["name"], style="bold")
    for line in remarks(card):
        out.print(line, style="bold", soft_wrap=True)
    out.print(summary(card), soft_wrap=True)
    for section in sections(card):
        out.print(f"\n{section.title}", style="bold")
        for paragraph in section.paragraphs:
            out.print(paragraph, soft_wrap=True)
        for table in section.tables:
            out.print(f"{table.title}:", style="italic")
            _print_table(out, table)
        for item in section.items:
            out.print(f"- {item}", soft_wrap=True)
        for command in section.commands:
            out.print(f"  {' '.join(command.split())}", soft_wrap=True)


def _print_table(out: Console, table: Table, whole: tuple[str, ...] = ()) -> None:
    """A table of which some columns, by name, are never folded."""
    from rich.table import Column
    from rich.table import Table as Shown

    from spikerl_deploy.report.table import cell_text

    shown = Shown(
        *(
            Column(
                one.heading,
                overflow="fold",
                justify="left" if one.text else "right",
                no_wrap=one.name in whole,
            )
            for one in table.columns
        ),
        box=None,
        pad_edge=False,
    )
    for row in table.rows:
        shown.add_row(*(cell_text(cell) for cell in row))
    out.print(shown)
    if table.note:
        out.print(table.note, style="dim", soft_wrap=True)
