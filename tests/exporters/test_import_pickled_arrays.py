"""Pickled statistics: floats as NumPy pickles them are read; nothing in a pickle is ever imported or called."""

from __future__ import annotations

import os
import pickle
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.importers import pickled_arrays
from exporters.importers.pickled_arrays import BYTES_MAX, read_vectors
from spikerl_deploy.errors import SpikerlError

RNG = np.random.default_rng(0)
MEAN, VAR = RNG.normal(size=17).astype(np.float32), RNG.random(17)


def read(folder: Path, content: bytes) -> list[np.ndarray]:
    (folder / "stats.p").write_bytes(content)
    return read_vectors(folder / "stats.p")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "pair",
    [
        [MEAN, VAR],
        (MEAN, VAR),
        [MEAN.tolist(), tuple(VAR)],
        [MEAN.astype(">f4"), VAR.astype(">f8")],
        [MEAN[::-1], np.asfortranarray(VAR)],
        [MEAN, MEAN],
        [[0, 1.5], [1, 2]],
    ],
)
def test_float_vectors_come_back_to_the_bit(tmp_path: Path, pair: Any, protocol: int) -> None:
    vectors = read(tmp_path, pickle.dumps(pair, protocol))
    assert len(vectors) == 2
    for vector, original in zip(vectors, pair, strict=True):
        np.testing.assert_array_equal(vector, np.asarray(original, dtype=np.float64))
        assert vector.dtype == np.float64


def test_pickles_of_numpy_1_and_of_python_2_are_read(tmp_path: Path) -> None:
    two = pickle.dumps([MEAN, VAR], 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    python_2 = (  # protocol 2, whose arrays hold their bytes as a str
        b"\x80\x02](cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08\x00\x00\x00\x00\x00\x00\xf8?tb](K\x02K\x03ee."
    )
    np.testing.assert_array_equal(read(tmp_path, two)[1], VAR)
    np.testing.assert_array_equal(read(tmp_path, python_2)[0], [1.5])
    np.testing.assert_array_equal(pickle.loads(python_2, encoding="latin1")[0], [1.5])


class Call:
    """Calls a function wherever it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class State:
    """Sets attributes wherever it is unpickled."""


def hostile(command: str) -> dict[str, Any]:
    import codecs

    code = f"__import__('os').system({command!r})"
    return {
        "os.system": Call(os.system, command),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "subprocess": Call(subprocess.getoutput, command),
        "nested": [MEAN, [1.0, [Call(os.system, command)]]],
        "as an argument": Call(codecs.encode, Call(os.system, command), "latin1"),
        "codecs with a codec": Call(codecs.encode, "text", "rot13"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "numpy function": Call(np.load, "file"),
        "object array": [np.array([Call(os.system, command)], dtype=object), VAR],
        "instance": [State(), VAR],
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", hostile(""))
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    marker = tmp_path / "ran"
    document = hostile(f"touch {marker}")[name]
    with pytest.raises(SpikerlError, match="which no array needs|arguments that no array needs") as caught:
        read(tmp_path, pickle.dumps(document, protocol))
    assert not marker.exists()
    assert caught.value.exit_code == 2 and caught.value.hint


def test_the_payloads_of_these_tests_would_run(tmp_path: Path) -> None:
    for name in ("os.system", "eval", "exec", "subprocess", "nested", "as an argument", "object array"):
        marker = tmp_path / name.replace(" ", "-")
        try:
            pickle.loads(pickle.dumps(hostile(f"touch {marker}")[name]))
        except TypeError:
            pass  # the result of the call is no text
        assert marker.exists(), name


def test_nothing_is_unpickled_by_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps([MEAN, VAR])
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.delattr(pickle, name)
    np.testing.assert_array_equal(read(tmp_path, content)[0], MEAN)
    assert not hasattr(pickled_arrays, "pickle")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
STATE = b"(K\x01%scnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR\x89%stb"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([np.zeros(2, dtype=np.int64), VAR]), "array of dtype 'i8', float32 or float64"),
        (pickle.dumps([np.zeros(2, dtype=bool), VAR]), "array of dtype 'b1'"),
        (pickle.dumps([np.array(["a"]), VAR]), "array of dtype 'U1'"),
        (pickle.dumps([np.zeros((1, 17)), VAR]), r"array of shape \(1, 17\), a vector was expected"),
        (pickle.dumps([["a"], [1.0]]), "list with a str in it"),
        (pickle.dumps([[[1.0]], [1.0]]), "list with a list in it"),
        (pickle.dumps([True, None]), "holds a bool, a float array was expected"),
        (pickle.dumps({"mean": MEAN}), "opcode EMPTY_DICT"),
        (pickle.dumps(3), "holds a int, a list of arrays"),
        (pickle.dumps("text"), "holds a str, a list of arrays"),
        (b"", "truncated or no pickle"),
        (b"hello", "truncated or no pickle"),
        (pickle.dumps([MEAN, VAR])[:-1], "truncated or no pickle"),
        (b"](" + ARRAY + STATE % (b"K\x05\x85", b"C\x01x") + b"]e.", "not of the size that it states"),
        (b"](" + ARRAY + STATE % (b"J\xff\xff\xff\xff\x85", b"C\x08" + b"x" * 8) + b"]e.", "not of the size"),
        (b"](" + ARRAY + STATE % (b"\x8a\x08" + b"\x7f" * 8 + b"\x85", b"C\x01x") + b"]e.", "not of the size"),
        (b"]r\xff\xff\xff\xff.", "holds 0 arrays"),  # a memo index that would make the C unpickler allocate 32 GiB
        (pickle.dumps([MEAN]), "holds 1 arrays, mean and variance were expected"),
        (pickle.dumps([MEAN, VAR, VAR]), "holds 3 arrays"),
        (b"](cnumpy\ndtype\n(C\x65" + b"f" * 101 + b"tR]e.", "holds a name of 101 characters"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "truncated or no pickle"),  # bytes of 2^63 - 1
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "truncated or no pickle"),
        (b"\x80\x04\x8c\x0aposix\nevil\x8c\x06system\x93.", r"refers to 'posix\\nevil.system'"),
        (b"P1\n.", "opcode PERSID"),
        (b"(ios\nsystem\n.", "opcode INST"),
        (b"]]b.", "sets the state of a list"),
        (b"cnumpy\ndtype\n}b.", "opcode EMPTY_DICT"),
        (b"K\x01)R.", "calls a int"),
    ],
)
def test_anything_but_float_vectors_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SpikerlError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in caught.value.message


def test_a_pickle_that_would_grow_is_refused_before_it_does(tmp_path: Path) -> None:
    nested = b"](](]q\x00"
    for depth in range(1, 60):  # a list of two lists of two lists ...: 2^60 leaves
        nested += b"](h" + bytes([depth - 1]) + b"h" + bytes([depth - 1]) + b"eq" + bytes([depth])
    with pytest.raises(SpikerlError, match="holds a list with a list in it"):
        read(tmp_path, nested + b"e]e.")
    with pytest.raises(SpikerlError, match="holds a list where a name was expected"):
        read(tmp_path, nested + b"h;h;\x93e.")
    with pytest.raises(SpikerlError, match="larger than 1048576 bytes"):
        read(tmp_path, pickle.dumps([np.zeros(BYTES_MAX // 8), VAR]))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([[float(i) for i in range(2000)]] * 2000, "holds 2000 arrays"),
        ([[np.arange(5000.0)] * 1000, [1.0]], "holds a list with a array in it"),
    ],
)
def test_one_object_named_many_times_does_not_fill_the_memory(tmp_path: Path, document: Any, message: str) -> None:
    content = pickle.dumps(document, 2)
    assert len(content) < 100_000  # 32 MB and 40 MB, were each of them made
    tracemalloc.start()
    try:
        with pytest.raises(SpikerlError, match=message):
            read(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def test_memory_that_runs_out_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "frombuffer", exhausted)
    with pytest.raises(SpikerlError, match="no pickle of arrays: MemoryError"):
        read(tmp_path, pickle.dumps([MEAN, VAR], 2))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match="cannot read"):
        read_vectors(tmp_path / "none.p")
    with pytest.raises(SpikerlError, match="cannot read"):
        read_vectors(tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(protocol=st.integers(0, 5), changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
def test_a_damaged_pickle_gives_vectors_or_an_error_of_ours(
    tmp_path: Path, protocol: int, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(pickle.dumps([MEAN, VAR], protocol))
    for place, value in changes:
        content[place % len(content)] = value
    try:
        vectors = read(tmp_path, bytes(content))
    except SpikerlError:
        return
    assert all(vector.ndim == 1 and vector.dtype == np.float64 for vector in vectors)
