"""The comparison behind `spikerl verify`: recording, feeding, counting, judging, and its documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import gymnasium
import numpy as np
import pytest
from support import naive_core, overflowing_policy, quantized_policy, random_policy, random_spikes

from exporters.quantize import quantize
from simulators.conformance import Divergence, compare_rasters, compare_sessions, run_steps
from simulators.fixed import FixedBackend, FixedSession
from simulators.protocol import Backend, Session, SpikeRecord
from simulators.recording import record_in_order
from simulators.rollout import rollout
from simulators.torch_backend import TorchBackend
from simulators.verify import (
    EXACT,
    FLOAT_SUMS,
    TRUNCATION,
    ActionError,
    Entrant,
    Reference,
    Tolerance,
    encode_steps,
    judge,
    lossless_layers,
    run_reference,
    skipped,
    tolerance_of,
    verify_entrant,
)
from simulators.verify_document import junit_xml, verdict_text, verify_document
from spikerl_deploy.codec import Spikes, decode
from spikerl_deploy.environments import make_environment
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import save_policy

ENV = "InvertedPendulum-v5"


def entrant(backend: Backend, policy: Policy, name: str | None = None, tolerance: Tolerance | None = EXACT) -> Entrant:
    return Entrant(name or backend.name, backend.runs(policy), tolerance, lambda batch: backend.open(policy, batch))


class FlippingSession(FixedSession):
    """Flips one spike at given places (layer, time step, neuron) of a given control step."""

    places: tuple[tuple[int, int, int], ...] = ((1, 3, 7),)
    control_step = 23

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        record, self.done = super()._infer(spikes, True), getattr(self, "done", 0)
        assert record.rasters is not None
        layers = tuple(raster.copy() for raster in record.rasters)
        row = self.control_step - self.done
        if 0 <= row < self.batch:
            for layer, t, neuron in self.places:
                layers[layer][row, t, neuron] ^= True
        self.done += self.batch
        return SpikeRecord(tuple(layer.sum(axis=1, dtype=np.int32) for layer in layers), layers)


def flipping(policy: Policy, tolerance: Tolerance | None = EXACT, **fields: object) -> Entrant:
    kind = type("Flipping", (FlippingSession,), fields)
    return Entrant("toy", "8-bit integers", tolerance, lambda batch: kind(policy, policy.integers, batch))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return quantized_policy()


@pytest.fixture(scope="module")
def reference(policy: Policy) -> Reference:
    return run_reference(entrant(FixedBackend(), policy), policy, ENV, 57, [3, 90, 4], 3)


# --- comparing -----------------------------------------------------------------------------------


def test_mismatches_are_counted_and_the_first_is_found_as_a_plain_loop_does() -> None:
    shapes = [(9, 4, 6), (9, 4, 3), (9, 4, 5)]
    rng = np.random.default_rng(0)
    for share in (0.0, 0.005, 0.02, 0.3):
        first = [rng.random(shape) < 0.4 for shape in shapes]
        second = [raster ^ (rng.random(raster.shape) < share) for raster in first]
        found, places, either = compare_rasters(first, second), [], 0
        for layer, (a, b) in enumerate(zip(first, second, strict=True)):
            for index in np.ndindex(a.shape):
                either += int(a[index] or b[index])
                if a[index] != b[index]:
                    places.append((index[0], layer, index[1], index[2]))
        assert found.control_steps == 9
        assert found.mismatches == tuple(sum(place[1] == layer for place in places) for layer in range(3))
        assert sum(found.either) == either
        assert found.mismatch_share == len(places) / either
        assert found.spikes == sum(raster.sum() for raster in first)
        assert found.exact == (not places)
        if places:
            step, layer, t, neuron = min(places)
            assert found.first == Divergence(layer, step, t, neuron)


def test_the_first_divergence_is_of_the_earliest_control_step_then_of_the_lowest_layer() -> None:
    first = [np.zeros((5, 3, 4), bool) for _ in range(3)]
    second = [raster.copy() for raster in first]
    for layer, step, t, neuron in ((0, 3, 0, 0), (1, 2, 2, 1), (2, 2, 0, 0), (1, 2, 1, 3)):
        second[layer][step, t, neuron] = True
    assert compare_rasters(first, second).first == Divergence(1, 2, 1, 3)


def test_silence_on_both_sides_is_agreement() -> None:
    nothing = [np.zeros((3, 2, 4), bool)]
    found = compare_rasters(nothing, nothing)
    assert (found.mismatch_share, found.either, found.exact) == (0.0, (0,), True)


@pytest.mark.parametrize("batch", [1, 4, 7, 20])
def test_control_steps_come_out_in_order_whatever_runs_side_by_side(policy: Policy, batch: int) -> None:
    inputs, seen = random_spikes(0, (11, 5, 40)), list[int]()
    with FixedBackend().open(policy, batch) as session:
        rasters = run_steps(session, inputs, seen.append)
    assert seen[-1] == 11 and len(seen) == -(-11 // batch)
    with FixedBackend().open(policy, 11) as session:
        expected = session.infer(inputs, rasters=True).rasters
    for ours, theirs in zip(rasters, expected or (), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: None,
        lambda r: r[:-1],
        lambda r: tuple(raster[:, :, :-1] for raster in r),
        lambda r: tuple(raster.astype(np.int8) for raster in r),
    ],
)
def test_rasters_of_another_shape_or_type_are_the_backends_error(
    policy: Policy, reference: Reference, spoil: Callable[[tuple[Spikes, ...]], object]
) -> None:
    class Spoiled(FixedSession):
        def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
            record = super()._infer(spikes, rasters)
            return SpikeRecord(record.counts, spoil(record.rasters or ()))  # type: ignore[arg-type]

    opened = Entrant("toy", "", EXACT, lambda batch: Spoiled(policy, policy.integers or (), batch))
    row = verify_entrant(opened, reference, 10)
    assert row.status == "error" and "the backend gave spikes" in row.reasons[0]


def test_sessions_side_by_side_count_calls(policy: Policy) -> None:
    inputs = random_spikes(1, (6, 4, 5, 40))
    flipped = type("Flipping", (FlippingSession,), {"control_step": 14, "places": ((2, 1, 5),)})
    a: Session
    with FixedBackend().open(policy, 4) as a, flipped(policy, policy.integers, 4) as b:
        found = compare_sessions(a, b, inputs)
    assert (found.control_steps, found.first) == (6, Divergence(2, 3, 1, 5))


# --- recording and encoding ----------------------------------------------------------------------


def test_the_recording_is_whole_episodes_in_the_order_of_their_seeds(policy: Policy) -> None:
    with FixedBackend().open(policy) as session:
        recording = record_in_order(session, ENV, 57, 3)
        episodes = [rollout(session, ENV, [seed], observe=10_000) for seed, _ in recording.episodes]
    seeds = [seed for seed, _ in recording.episodes]
    assert seeds == list(range(3, 3 + len(seeds))) and len(seeds) > 2
    assert sum(steps for _, steps in recording.episodes) == len(recording.observations) == 57
    expected = np.concatenate([played.observations for played in episodes if played.observations is not None])
    np.testing.assert_array_equal(recording.observations, expected[:57])
    whole = list(zip(seeds, episodes, strict=True))[:-1]  # the last one is cut off
    assert recording.returns == {seed: played.returns[0] for seed, played in whole}
    first = recording.episodes[0][1]
    assert recording.locate(0) == (3, 0) and recording.locate(first - 1) == (3, first - 1)
    assert recording.locate(first) == (4, 0)
    assert recording.locate(56) == (seeds[-1], recording.episodes[-1][1] - 1)
    with pytest.raises(IndexError):
        recording.locate(57)


def test_the_reference_holds_the_spikes_and_actions_of_its_recording(policy: Policy, reference: Reference) -> None:
    inputs = encode_steps(policy, reference.recording.observations, 3)
    assert policy.decoder is not None
    with FixedBackend().open(policy, 57) as session:
        record = session.infer(inputs, rasters=True)
        returns = rollout(session, ENV, [3, 90, 4]).returns
    for ours, theirs in zip(reference.rasters, record.rasters or (), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(reference.actions, decode(record.output_counts, 5, policy.decoder))
    assert reference.returns == returns


def test_poisson_coding_draws_the_same_spikes_for_every_backend() -> None:
    policy = quantized_policy(coding="poisson")
    observations = np.random.default_rng(0).normal(0, 1, (30, 4))
    first, again, other = (encode_steps(policy, observations, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first[0] != first[1]).any()
    played = run_reference(entrant(FixedBackend(), policy), policy, ENV, 30, [0], 0)
    assert verify_entrant(entrant(FixedBackend(), policy), played, 7).status == "passed"


def test_the_policy_as_trained_sees_the_observations_through_its_own_encoder(policy: Policy) -> None:
    assert policy.encoder is not None and policy.trained is not None
    coarse = replace(policy.encoder, mean=np.round(policy.encoder.mean))
    deployed = replace(policy, encoder=coarse, trained_encoder=policy.encoder)
    played = run_reference(entrant(FixedBackend(), deployed), deployed, ENV, 40, [], 0)
    row = verify_entrant(entrant(TorchBackend("cpu"), deployed, tolerance=None), played, 10)
    assert row.status == "informational" and row.returns is None and row.conformance is not None
    spikes = encode_steps(policy, played.recording.observations, 0)
    expected = [np.stack([naive_core(policy.trained, one)[layer] for one in spikes]) for layer in range(3)]
    assert row.conformance == compare_rasters(played.rasters, expected)


def test_recording_ends_where_the_episode_does_not(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(gymnasium.Wrapper):
        steps = 0

        def step(self, action: np.ndarray) -> tuple:
            self.steps += 1
            assert self.steps <= 12
            observation, reward, *_, info = self.env.step(action)
            return observation, reward, False, False, info

    monkeypatch.setattr("simulators.rollout.make_environment", lambda env_id: Endless(make_environment(env_id)))
    played = run_reference(entrant(FixedBackend(), policy), policy, ENV, 12, [], 3)
    assert played.recording.episodes == ((3, 12),) and played.recording.returns == {}
    row = verify_entrant(entrant(FixedBackend(), policy), played, 5)
    assert row.status == "passed" and row.returns is None


# --- judging -------------------------------------------------------------------------------------


def test_integers_and_proven_floats_are_held_to_be_exact() -> None:
    lossless, lossy = quantized_policy(), quantized_policy(time_steps=16)
    assert lossless.integers is not None and all(lossless_layers(lossless))
    mixed = replace(lossless, integers=(*lossless.integers[:2], replace(lossless.integers[2], dv=1025)))
    assert lossless_layers(mixed) == (True, True, False)
    assert tolerance_of(mixed, "float") == TRUNCATION and tolerance_of(mixed, "integer") == EXACT
    assert tolerance_of(lossless, "integer") == tolerance_of(lossless, "float") == EXACT
    assert tolerance_of(lossy, "integer") == EXACT
    assert tolerance_of(lossy, "float") == TRUNCATION
    assert tolerance_of(random_policy(), "float") == FLOAT_SUMS
    assert EXACT.exact and not TRUNCATION.exact and not FLOAT_SUMS.exact


@pytest.mark.parametrize("bits", [8, 4])
def test_the_stated_tolerance_lets_truncation_pass_and_quantization_not(bits: int) -> None:
    """16 time steps truncate; what rounding the weights does is an order of magnitude more."""
    trained = random_policy(3, obs_dim=11, act_dim=3, hidden=(64, 64), time_steps=16, env_id="Hopper-v5",
                            action_bound=1.0)  # fmt: skip
    layers = tuple(replace(layer, current_decay=0.6, voltage_decay=0.83) for layer in trained.layers)
    policy = quantize(replace(trained, layers=layers), bits)[0]
    tolerance = tolerance_of(policy, "float")
    assert tolerance == TRUNCATION
    played = run_reference(entrant(FixedBackend(), policy), policy, "Hopper-v5", 200, [], 0)
    graph = verify_entrant(entrant(TorchBackend("cpu", weights="graph"), policy, tolerance=tolerance), played, 50)
    assert graph.status == "passed" and graph.conformance is not None and not graph.conformance.exact
    as_trained = verify_entrant(entrant(TorchBackend("cpu"), policy, tolerance=tolerance), played, 50)
    assert as_trained.status == "failed" and as_trained.conformance is not None
    assert as_trained.conformance.mismatch_share > 10 * graph.conformance.mismatch_share


def test_the_torch_backend_runs_the_graphs_weights_on_request(policy: Policy) -> None:
    spikes = random_spikes(1, (3, 5, 40))
    bits3 = quantized_policy(bits=3)
    for weights, layers in (("graph", bits3.layers), ("trained", bits3.trained)):
        backend = TorchBackend("cpu", weights=weights)
        with backend.open(bits3, 3) as session:
            rasters = session.infer(spikes, rasters=True).rasters
        assert layers is not None
        for ours, naive in zip(rasters or (), naive_core(layers, spikes[0]), strict=True):
            np.testing.assert_array_equal(ours[0], naive)
        for ours, layer in zip(backend.layer_weights(bits3), layers, strict=True):
            np.testing.assert_array_equal(ours, layer.weight)
        assert backend.runs(bits3).endswith("of the NIR graph" if weights == "graph" else "as trained")
    with pytest.raises(SpikerlError, match="unknown weights 'best'; there is: graph, trained"):
        TorchBackend("cpu", weights="best")


@pytest.mark.parametrize("parallel", [1, 10, 100])
def test_one_flipped_spike_is_found_where_it_is(policy: Policy, reference: Reference, parallel: int) -> None:
    row = verify_entrant(flipping(policy), reference, parallel)
    assert row.status == "failed" and row.conformance is not None
    assert row.conformance.mismatches == (0, 1, 0)
    assert row.conformance.first == Divergence(1, 23, 3, 7)
    assert row.first_spiked is bool(reference.rasters[1][23, 3, 7])
    assert row.reasons[0].startswith(f"1 of {sum(row.conformance.either)} spikes differ")
    assert row.action_error is not None and row.action_error.share == 0


def test_an_output_spike_moves_the_action_by_what_the_decoder_makes_of_it(policy: Policy, reference: Reference) -> None:
    row = verify_entrant(flipping(policy, places=((2, 0, 4),)), reference, 10)
    assert policy.decoder is not None and row.action_error is not None
    counts = reference.rasters[2].sum(axis=1)
    changed = counts.copy()
    changed[23, 4] += -1 if reference.rasters[2][23, 0, 4] else 1
    moved = float(np.abs(decode(changed, 5, policy.decoder) - decode(counts, 5, policy.decoder)).max())
    assert moved > 0
    assert row.action_error == ActionError(pytest.approx(moved / 6), pytest.approx(moved), 23, 0)
    assert [reason.split()[0] for reason in row.reasons][:2] == ["1", "an"]
    within = verify_entrant(flipping(policy, Tolerance(0.01, moved / 6 * 1.001), places=((2, 0, 4),)), reference, 10)
    beyond = verify_entrant(flipping(policy, Tolerance(0.01, moved / 6 * 0.999), places=((2, 0, 4),)), reference, 10)
    assert (within.status, beyond.status) == ("passed", "failed")


def test_mismatches_are_judged_by_their_share(policy: Policy, reference: Reference) -> None:
    row = verify_entrant(flipping(policy), reference, 10)
    assert row.conformance is not None and row.action_error is not None
    share = row.conformance.mismatch_share
    assert judge(Tolerance(share, 1.0), reference, row.conformance, row.action_error, None) == ()
    assert len(judge(Tolerance(share * 0.999, 1.0), reference, row.conformance, row.action_error, None)) == 1
    assert judge(None, reference, row.conformance, row.action_error, None) == ()


def test_a_backend_that_agrees_on_the_recording_but_not_in_the_loop_fails(policy: Policy, reference: Reference) -> None:
    class Diverging(FixedSession):
        """Agrees for the recorded calls; the played episodes run three side by side."""

        def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
            record = super()._infer(spikes, rasters)
            return record if rasters else SpikeRecord(tuple(counts * 0 for counts in record.counts))

    opened = Entrant("toy", "", EXACT, lambda batch: Diverging(policy, policy.integers or (), batch))
    row = verify_entrant(opened, reference, 10)
    assert row.status == "failed" and row.conformance is not None and row.conformance.exact
    assert len(row.reasons) == 1 and "differs from fixed's" in row.reasons[0]
    loose = verify_entrant(replace(opened, tolerance=TRUNCATION), reference, 10)
    assert loose.status == "passed"


def test_one_that_breaks_off_gives_a_row(policy: Policy, reference: Reference) -> None:
    def refuse(batch: int) -> Session:
        raise SpikerlError("the worker died", "restart it")

    row = verify_entrant(Entrant("toy", "", EXACT, refuse), reference, 10)
    assert (row.status, row.reasons, row.hint) == ("error", ("the worker died",), "restart it")
    assert row.conformance is None and row.seconds >= 0


def test_one_of_another_distribution_that_raises_anything_gives_a_row(policy: Policy, reference: Reference) -> None:
    def fail(batch: int) -> Session:
        raise RuntimeError("no\ndriver")

    row = verify_entrant(Entrant("toy", "", EXACT, fail), reference, 10)
    assert (row.status, row.reasons, row.hint) == ("error", ("RuntimeError: no driver",), None)


@pytest.mark.filterwarnings("error")
def test_an_action_that_is_no_number_never_passes(reference: Reference) -> None:
    broken = overflowing_policy()
    overflowing = replace(reference, policy=broken, seeds=(), returns=())
    row = verify_entrant(entrant(TorchBackend("cpu"), broken, tolerance=Tolerance(1.0, 1.0)), overflowing, 10)
    assert row.status == "error" and row.reasons == (
        "action 0 of control step 0 is nan: the decoder overflows float32",
    )


# --- documents -----------------------------------------------------------------------------------


@pytest.fixture
def document(policy: Policy, reference: Reference, tmp_path: Path) -> dict[str, object]:
    save_policy(policy, tmp_path / "p.nir")

    def refuse(batch: int) -> Session:
        raise SpikerlError("died with \x1b[31m<red> & \ud800")

    entrants = [
        entrant(FixedBackend(), policy, "same"),
        flipping(policy),
        Entrant("dead", "", EXACT, refuse),
        entrant(TorchBackend("cpu"), policy, "torch, as trained", None),
    ]
    rows = [verify_entrant(one, reference, 10) for one in entrants]
    return verify_document(tmp_path / "p.nir", reference, [*rows, skipped("norse", "not installed", "install it")])


def test_the_document_is_strict_json_and_says_where(document: dict, reference: Reference) -> None:
    document = json.loads(json.dumps(document, allow_nan=False))
    assert (document["schema"], document["passed"], document["control_steps"]) == ("spikerl.verify/1", False, 57)
    rows = {row["name"]: row for row in document["rows"]}
    assert [row["status"] for row in rows.values()] == ["passed", "failed", "error", "informational", "skipped"]
    seed, step = reference.recording.locate(23)
    spiked = bool(reference.rasters[1][23, 3, 7])
    assert rows["toy"]["first_divergence"] == {
        "layer": 1, "control_step": 23, "time_step": 3, "neuron": 7,
        "seed": seed, "episode_step": step, "reference_spiked": spiked,
    }  # fmt: skip
    assert rows["same"]["first_divergence"] is None and rows["same"]["spikes"]["mismatches"] == [0, 0, 0]
    assert rows["same"]["returns"] == document["reference"]["returns"] and len(document["seeds"]) == 3
    assert document["reference"]["spikes"] == [int(raster.sum()) for raster in reference.rasters]
    assert document["policy"]["lossless"] == [True, True, True]
    where = f"layer 1, control step 23 (step {step} of seed {seed}), time step 3, neuron 7, where only "
    assert where + ("fixed" if spiked else "toy") + " spikes" in verdict_text(rows["toy"], "fixed")
    assert rows["norse"]["reasons"] == ["not installed"]


def test_one_that_breaks_off_is_enough_not_to_pass(policy: Policy, reference: Reference, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "p.nir")
    row = verify_entrant(entrant(FixedBackend(), policy), reference, 10)
    for status, passed in (("passed", True), ("informational", True), ("skipped", True), ("error", False)):
        rows = [row, replace(row, status=status)]
        assert verify_document(tmp_path / "p.nir", reference, rows)["passed"] is passed


def test_a_layer_that_never_spikes_is_warned_of(policy: Policy, reference: Reference, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "p.nir")
    silent = replace(reference, rasters=(*reference.rasters[:2], reference.rasters[2] & False))
    assert verify_document(tmp_path / "p.nir", reference, [])["warnings"] == []
    (warning,) = verify_document(tmp_path / "p.nir", silent, [])["warnings"]
    assert warning.startswith("layer 2 never spikes")


def test_junit_has_a_testcase_for_each_backend_that_is_judged_or_skipped(document: dict) -> None:
    root = ElementTree.fromstring(junit_xml(document))
    (suite,) = root
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == ["same", "toy", "dead", "norse"]
    for element in (root, suite):
        found = {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")}
        assert found == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    assert [child.tag for case in cases.values() for child in case] == ["failure", "error", "skipped"]
    failure = cases["toy"].find("failure")
    assert failure is not None and "layer 1, control step 23" in str(failure.get("message"))
    assert failure.text == failure.get("message")
    error = cases["dead"].find("error")
    assert error is not None and error.get("message") == "died with \ufffd[31m<red> & \ufffd"
    skip = cases["norse"].find("skipped")
    assert skip is not None and skip.get("message") == "not installed"
    assert all(float(case.get("time", "-1")) >= 0 for case in cases.values())
