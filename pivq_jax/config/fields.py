"""The whole config: built from nested mappings, and listed.

Config files return an `ml_collections.ConfigDict`, whose fields can be changed on the command line.
The code uses a `Config`, which is frozen and typed. Descriptions and limits are metadata of the
fields of the dataclasses in `config.sections`; `config.check` enforces the limits and
`config.table` prints all fields.
"""

import json
import reprlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, Self, get_type_hints

from pivq_jax.common.errors import InputError, listed
from pivq_jax.config import sections
from pivq_jax.config.sections import INT32, PRINTABLE, Limit, Section, setting, step_at


@dataclass(frozen=True)
class Config(Section):
    """All fields of a run, complete and of the right types; `check_config` checks the values."""

    name: str = setting("", "names the default workdir, runs/NAME", PRINTABLE)
    seed: int = setting(0, "order of the data, initial weights, all other draws", INT32)
    data: sections.DataConfig = field(default_factory=sections.DataConfig)
    model: sections.ModelConfig = field(default_factory=sections.ModelConfig)
    quantizer: sections.QuantizerConfig = field(default_factory=sections.QuantizerConfig)
    loss: sections.LossConfig = field(default_factory=sections.LossConfig)
    adversarial: sections.AdversarialConfig = field(default_factory=sections.AdversarialConfig)
    optimizer: sections.OptimizerConfig = field(default_factory=sections.OptimizerConfig)
    train: sections.TrainConfig = field(default_factory=sections.TrainConfig)
    checkpoints: sections.CheckpointsConfig = field(default_factory=sections.CheckpointsConfig)
    profile: sections.ProfileConfig = field(default_factory=sections.ProfileConfig)
    mesh: sections.MeshConfig = field(default_factory=sections.MeshConfig)
    evaluate: sections.EvaluateConfig = field(default_factory=sections.EvaluateConfig)
    sample: sections.SampleConfig = field(default_factory=sections.SampleConfig)
    prior: sections.PriorConfig = field(default_factory=sections.PriorConfig)

    @property
    def init_step(self) -> int:
        """The step at which the codebook is initialized, the first with quantization."""
        return step_at(self.quantizer.init_at, self.train.steps)

    @property
    def freeze_step(self) -> int:
        """The first step of the decoder alone, if `quantizer.freezes`."""
        return step_at(self.quantizer.freeze_at, self.train.steps)

    @property
    def adversarial_step(self) -> int:
        """The first step of the discriminator, if `adversarial.is_used`."""
        return step_at(self.adversarial.start_at, self.train.steps)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a config from nested mappings, as in `ConfigDict.to_dict()` or a `config.json`.

        Raises:
            InputError: if fields are missing, unknown or of another type; the message names up to
                five of them.
        """
        faults: list[str] = []
        config = _build(cls, values, "", faults)
        if faults:
            raise InputError(listed(faults, ", "))
        return config

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dictionaries of JSON values, sorted by name as in a ConfigDict."""
        return json.loads(json.dumps(asdict(self), sort_keys=True))

    def with_fields(self, fields: Mapping[str, Any]) -> Self:
        """Returns a copy with other values of some fields, by dotted name such as `mesh.fsdp`.

        Raises:
            InputError: if there is no such field, or a value is of another type.
        """
        values = self.to_dict()
        for name, value in fields.items():
            prefix, _, field = name.rpartition(".")
            section = values.get(prefix) if prefix else values
            if not isinstance(section, dict):
                raise InputError(f"{name} is unknown")
            section[field] = value
        return self.from_dict(values)


# Fields that define the model; see `pivq_from_config`.
BUILT_FROM = (
    "data.image_size",
    *(f"model.{each.name}" for each in fields(sections.ModelConfig)),
    *("quantizer.kind", "quantizer.method", "quantizer.codebook_size"),
)
# Fields that hold paths (or addresses) of the machine on which a model was trained.
PATHS = ("data.path", "loss.perceptual_weights", "evaluate.features_path")


class Field(NamedTuple):
    """A field of a config; see `config.sections.setting`."""

    name: str  # dotted, such as `mesh.fsdp`
    type: type
    default: Any
    description: str
    limit: Limit | None


def all_fields(section: type[Section] = Config, prefix: str = "") -> Iterator[Field]:
    """Yields the fields of a section and of its subsections, with a prefix such as `mesh.`."""
    types = get_type_hints(section)
    for each in fields(section):
        name, kind = f"{prefix}{each.name}", types[each.name]
        if issubclass(kind, Section):
            yield from all_fields(kind, f"{name}.")
        else:
            yield Field(name, kind, each.default, **each.metadata)


def _build(section: type[Any], values: Mapping[str, Any], prefix: str, faults: list[str]) -> Any:
    """Builds a section, and adds what is wrong with its values to `faults`."""
    types, built = get_type_hints(section), {}
    # A published model may hold any text.
    faults += [f"{prefix}{name[:60]} is unknown" for name in values if name not in types]
    for name, kind in types.items():
        value = values.get(name)
        if name not in values:
            faults.append(f"{prefix}{name} is missing")
        elif issubclass(kind, Section):
            if isinstance(value, Mapping):
                built[name] = _build(kind, value, f"{prefix}{name}.", faults)
            else:
                faults.append(f"{prefix}{name} = {reprlib.repr(value)} must be a section")
        elif _is_of_type(value, kind):
            built[name] = kind(value)
        else:
            faults.append(f"{prefix}{name} = {reprlib.repr(value)} must be of type {kind.__name__}")
    return section(**built)


def _is_of_type(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float and isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return isinstance(value, kind)
