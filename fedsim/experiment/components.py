"""What a run is made of: data and models, real or stand-in, as the scenario asks.

Real models import torch, and only when they are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.experiment import billed
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.replay.recorded_models import RecordedModels, recorded_components
from fedsim.models.client_training_config import LocalTrainingConfig
from fedsim.models.interfaces import Components, Evaluator, Policy, Synthesiser
from fedsim.models.timing.stand_ins import StandInEvaluator, StandInPolicy
from fedsim.models.timing.synthesis import StandInSynthesiser
from fedsim.models.timing.training import StandInTrainer
from fedsim.privacy.config import SynthesisConfig
from fedsim.processes import gc_policy
from fedsim.progress import Phase, Progress
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.sim.lazy import LazySequence
from fedsim.tasks.questions import TaskData

if TYPE_CHECKING:
    from fedsim.models.real.synthesis import ModelSynthesiser
    from fedsim.scenario.schema import Scenario


def load_components(
    prepared: Prepared, progress: Progress, recorded: RecordedModels | None = None
) -> Components:
    """The models and the data of a run: the one place that knows which there are.

    In timing fidelity token counts instead of models. With real models what the cache lacks is trained, with a progress phase
    for each; ``recorded`` wraps them in a tape, and has them loaded when they are first needed.

    Raises:
        InputError: a named model, or an own question file, cannot be used.
    """
    if prepared.scenario.fidelity == "timing":
        return _stand_ins(prepared)
    with progress.phase("questions", None):
        data = prepared.data
    if recorded is not None:
        return recorded_components(recorded, prepared.scenario.protocol, data)
    return _real_models(prepared, progress)


def _stand_ins(prepared: Prepared) -> Components:
    scenario, data, num_clients = prepared.scenario, prepared.data, prepared.num_clients
    known = {question.text: question for question in (*data.auxiliary, *data.pool, *data.validation)}

    def evaluator_of(client_id: int) -> Evaluator:
        rows = dict(zip(data.domains, data.partition[client_id].tolist(), strict=True))
        return StandInEvaluator(client_id, rows, known, scenario.seed)

    policy = StandInPolicy(scenario.protocol, scenario.seed)
    server_spec = billed.spec_without_weights(scenario, "server")
    return Components(
        data=data,
        policy=policy,
        frozen=StandInEvaluator(-1, {}, known, scenario.seed),
        evaluators=LazySequence(num_clients, evaluator_of),
        server_spec=server_spec,
        client_specs=billed.client_specs_without_weights(scenario, num_clients),
        hashes={},
        trainer=_stand_in_trainer(scenario, policy, server_spec),
        synthesiser=_stand_in_synthesiser(scenario),
    )


def _stand_in_trainer(scenario: Scenario, policy: Policy, server_spec: ModelSpec) -> StandInTrainer | None:
    """Local training without models, for protocols whose settings ask for local training."""
    settings = scenario.protocol
    if not isinstance(settings, LocalTrainingConfig):
        return None
    return StandInTrainer(policy, settings, server_spec, scenario.seed)


def _stand_in_synthesiser(scenario: Scenario) -> Synthesiser | None:
    """Synthetic rows without models, for protocols whose settings ask for them."""
    settings = getattr(scenario.protocol, "synthesis", None)
    return StandInSynthesiser(settings, scenario.seed) if isinstance(settings, SynthesisConfig) else None


def _real_models(prepared: Prepared, progress: Progress) -> Components:
    scenario, data = prepared.anchored, prepared.data
    with progress.phase("imports", None), gc_policy.unsought(for_good=False):
        from fedsim.models.real import bundle, ray_scoring
    training = _TrainingProgress(progress)
    try:
        loaded = bundle.load_models(
            scenario.models,
            scenario.protocol,
            data,
            scenario.seed,
            threads=scenario.compute.threads,
            cache_dir=prepared.cache_dir,
            progress=training,
        )
        synthesiser = _synthesiser(scenario, data, prepared.cache_dir, training)
    finally:
        training.close()
    specs = [billed.spec_of(scenario, "clients", one.language.network) for one in loaded.evaluators]
    return Components(
        data=data,
        policy=loaded.policy,
        frozen=loaded.reference,
        evaluators=ray_scoring.scoring(
            loaded.evaluators, scenario.compute, scenario.protocol.max_new_tokens, progress
        ),
        server_spec=billed.spec_of(scenario, "server", loaded.policy.language.network),
        client_specs=tuple(specs) if len(set(specs)) > 1 else (specs[0],),
        hashes=loaded.hashes | ({"generator": synthesiser.generator_sha256()} if synthesiser else {}),
        save=loaded.policy.save,
        trainer=loaded.trainer,
        synthesiser=synthesiser,
    )


def _synthesiser(
    scenario: Scenario, data: TaskData, cache_dir: Path | None, training: _TrainingProgress
) -> ModelSynthesiser | None:
    """What makes synthetic rows with real models, for protocols whose settings ask for them."""
    settings = getattr(scenario.protocol, "synthesis", None)
    if not isinstance(settings, SynthesisConfig):
        return None
    from fedsim.models.real.synthesis import load_synthesiser

    return load_synthesiser(
        settings,
        scenario.models.clients,
        data,
        scenario.seed,
        threads=scenario.compute.threads,
        cache_dir=cache_dir,
        progress=training,
    )


class _TrainingProgress:
    """One progress phase per model that is trained from scratch."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phases: dict[str, tuple[Phase, int]] = {}

    def __call__(self, name: str, step: int, total: int, loss: float) -> None:
        """Report that ``step`` of ``total`` steps are done."""
        if name not in self._phases:
            self._phases[name] = (self._progress.phase(f"training {name}", total), 0)
        phase, done = self._phases[name]
        phase.advance(step - done, loss=loss)
        self._phases[name] = (phase, step)
        if step == total:
            phase.__exit__(None, None, None)
            del self._phases[name]

    def close(self) -> None:
        """Finish every phase."""
        for phase, _ in self._phases.values():
            phase.__exit__(None, None, None)
