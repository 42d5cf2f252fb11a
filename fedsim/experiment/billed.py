"""What a run's models, messages and texts count as: as they are, or as the bigger models that it is billed as.

Reads the scenario's ``models.bill_as`` and ``text`` and answers in the terms of the cost model (`fedsim.sim.devices.cost`), of
the link (`fedsim.federation.billed_sizes`) and of the devices' memory (`fedsim.experiment.device_memory`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from fedsim.errors import ScenarioError
from fedsim.experiment import device_memory
from fedsim.federation.billed_sizes import (
    AsEncoded,
    BilledCounts,
    BilledSizes,
    Sizes,
    TokenCounts,
    TokenizerCounts,
)
from fedsim.federation.text_lengths import TextConfig, TextLengths
from fedsim.models.config import ModelsConfig, is_config_file
from fedsim.models.pretrained import CARRIED
from fedsim.models.sources import FolderModel, ModelSource, PretrainedModel, ScratchModel
from fedsim.models.timing import stand_ins
from fedsim.sim.devices import population
from fedsim.sim.devices.architecture import ModelSpec, architecture, spec_from_config, spec_from_file

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario


def statement(models: ModelsConfig, text: TextConfig | None) -> str | None:
    """What a run is billed as, in one line for figures and summaries; None where everything counts as it is."""
    parts = []
    if models.bill_as is not None:
        parts.append(f"server as {models.bill_as.server_name}, clients as {models.bill_as.clients_name}")
    if text is not None:
        parts.append(f"text lengths: {text}")
    return "; ".join(parts) or None


def stated_lengths(scenario: Scenario) -> TextLengths | None:
    """The stated lengths of texts; None where every text is as long as it is."""
    return None if scenario.text is None else TextLengths(scenario.text, scenario.seed)


def spec_without_weights(scenario: Scenario, side: Literal["server", "clients"]) -> ModelSpec:
    """The architecture that a side's model counts as where no model is loaded.

    Raises:
        ScenarioError: only loading could tell.
        ModelFileError: the file that says it cannot be used.
    """
    return _billed(scenario, side) or _architecture(scenario, side)


def client_specs_without_weights(scenario: Scenario, num_clients: int) -> tuple[ModelSpec, ...]:
    """The architecture that client k's model counts as where no model is loaded; a single one where all have the same.

    Raises:
        ScenarioError, ModelFileError: as for `spec_without_weights`.
    """
    source = scenario.models.clients
    if scenario.models.bill_as is None and isinstance(source, FolderModel) and source.is_one_for_each_client:
        specs = [
            spec_from_file(scenario.folder / source.folder_of(client) / "config.json")
            for client in range(num_clients)
        ]
        return tuple(specs) if len(set(specs)) > 1 else (specs[0],)
    return (spec_without_weights(scenario, "clients"),)


def spec_of(scenario: Scenario, side: Literal["server", "clients"], network: Any) -> ModelSpec:
    """The architecture that a side's loaded model counts as.

    Raises:
        ModelFileError: the file that says it cannot be used.
    """
    return _billed(scenario, side) or spec_from_config(network.config.to_dict())


def counts(lengths: TextLengths | None, count: Callable[[str], int]) -> TokenCounts:
    """How many tokens texts count: as stated, or as a tokenizer says."""
    return TokenizerCounts(count) if lengths is None else BilledCounts(lengths)


def sizes(scenario: Scenario, server_spec: ModelSpec, lengths: TextLengths | None) -> Sizes:
    """How long messages count; adapters have the server model's shapes where that model is not really there."""
    shapes = None
    if scenario.fidelity == "timing" or scenario.models.bill_as is not None:
        shapes_of = getattr(scenario.protocol, "adapter_shapes", None)
        shapes = None if shapes_of is None else shapes_of(server_spec)
    return AsEncoded() if lengths is None and shapes is None else BilledSizes(lengths, shapes)


def requirement(
    scenario: Scenario, server_spec: ModelSpec, client_spec: ModelSpec, lengths: TextLengths | None
) -> device_memory.Requirement:
    """What every client's device must hold."""
    longest_tokens = 0 if lengths is None else lengths.longest_row_tokens
    return device_memory.requirement(scenario.protocol, server_spec, client_spec, longest_tokens)


def check_memory(scenario: Scenario, devices: population.Population) -> None:
    """Refuse a federation in which no device can hold the model that it is billed as, before anything is trained.

    Raises:
        FederationError: says how much memory is needed and what the devices have.
        ModelFileError: an architecture's file cannot be used.
    """
    server_spec, client_spec = _billed(scenario, "server"), _billed(scenario, "clients")
    if server_spec is None or client_spec is None or scenario.text is None:
        return
    needed = requirement(scenario, server_spec, client_spec, stated_lengths(scenario))
    device_memory.too_small([needed], devices)


def _billed(scenario: Scenario, side: Literal["server", "clients"]) -> ModelSpec | None:
    """The architecture that a side is billed as; None where it is billed as what it is."""
    bill_as = scenario.models.bill_as
    if bill_as is None:
        return None
    name: str = getattr(bill_as, side)
    return spec_from_file(scenario.folder / name) if is_config_file(name) else architecture(name)


def _architecture(scenario: Scenario, side: Literal["server", "clients"]) -> ModelSpec:
    """The architecture of a model that timing fidelity does not load."""
    source: ModelSource = getattr(scenario.models, side)
    if isinstance(source, ScratchModel):
        return ModelSpec(
            num_layers=source.num_layers,
            hidden=source.hidden_size,
            num_heads=source.num_heads,
            num_kv_heads=source.num_heads,
            head_dim=source.hidden_size // source.num_heads,
            ffn=source.intermediate_size,
            vocab=stand_ins.VOCABULARY,
            tied=True,
        )
    if isinstance(source, PretrainedModel):
        return architecture(CARRIED[source.pretrained].architecture)
    if isinstance(source, FolderModel):
        return spec_from_file(scenario.folder / source.folder_of(0) / "config.json")
    raise ScenarioError(
        f"models.{side}: a hub model needs fidelity: real; timing fidelity loads no model"
    ).at("models", side)
