"""Atomic writes: the old content or the new, never a mixture, and nothing left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import atomic_path, check_targets, sha256_file, write_json, write_text


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(ValueError, match="stop"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_reader_of_the_old_file_never_sees_the_new_content(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_folders_are_made_and_rights_follow_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpikerlError, match="cannot write"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SpikerlError, match="no regular file"):
        write_text(tmp_path / "fifo", "text", force=True)


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_sha256_of_known_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_text("abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_targets_are_checked_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "lost").symlink_to("nowhere")
    sources = {"input": tmp_path / "in"}
    check_targets([("-o", tmp_path / "a" / "b"), ("--x", tmp_path / "a" / "c")], False, sources)
    wrong = {
        "--x names '.*link', which is the input": ["link"],
        "cannot write '.*in/x': Not a directory": ["in/x"],
        "cannot write '.*lost/x': No such file": ["lost/x"],
        "cannot write '.*': File name too long": ["n" * 300],
        "-o '.*a' and --x '.*a/b' take the same place": ["a/b", "a"],
        "-o '.*a/b' and --x '.*a' take the same place": ["a", "a/b"],
    }
    for message, (name, *other) in wrong.items():
        targets = [*(("-o", tmp_path / one) for one in other), ("--x", tmp_path / name)]
        with pytest.raises(SpikerlError, match=message):
            check_targets(targets, True, sources)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "link", "lost"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_found_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SpikerlError, match="Permission denied"):
        check_targets([("-o", tmp_path / "x")], False, {})
