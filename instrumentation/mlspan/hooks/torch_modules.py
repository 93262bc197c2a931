"""Stage 1, torch: which modules are models, which model it is, and whether its parameters are still the same.

Reads `torch.nn.Module` objects, writes one `Known` per module that was called as the outermost one. Guarantee: torch
is not imported, no code of the user's runs but attribute reads, no module or tensor is kept alive. Memory: an entry per
live module that was called by user code itself.

A version is a hash (BLAKE2b) of names, shapes, dtypes and of at most SAMPLE values of each parameter and buffer, evenly
spaced: the same in every process, on every device, compiled, scripted or not.
"""

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np

from mlspan.config import Settings
from mlspan.fingerprint import DIGEST_BYTES
from mlspan.guard import failed, guarded
from mlspan.identity import read
from mlspan.inputs.tensors import About
from mlspan.inputs.torch_values import array_of, plain
from mlspan.models import FINGERPRINT_PREFIX, registration

SAMPLE: Final = 8_192
"""Values of one tensor that its model's version depends on."""
MAX_MODULES: Final = 65_536
"""Submodules that are looked at."""
PROBES: Final = 2

NO_MODELS: Final = (
    *("torch.nn.modules.loss", "torchvision.transforms", "torchaudio.transforms", "torchmetrics", "kornia"),
    *("ignite.metrics", "timm.loss", "timm.data", "monai.losses", "monai.transforms", "monai.metrics"),
    *("segmentation_models_pytorch.losses", "pytorch_metric_learning.losses", "sentence_transformers.losses"),
)
"""Modules whose classes, and what is made from them, measure or prepare, and are no models."""

_WRAPPERS: Final = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "AveragedModel": "module",
}
"""Classes of torch that stand for the module they hold: class name -> where it is."""


class _Probe(NamedTuple):
    """A parameter by which it is seen whether the others may have changed.

    Attributes:
        tensor: the parameter.
        version: how often it had been changed in place.
        owner: the module that holds it; None: it cannot be replaced.
        name: what it is called there.
    """

    tensor: "weakref.ref[Any]"
    version: int
    owner: "weakref.ref[Any] | None"
    name: str


class Known:
    """One module that was called as the outermost one.

    Attributes:
        module: weak reference to it.
        model: weak reference to the model it stands for: itself, or the module within a wrapper.
        is_model: whether its calls become spans.
        is_bare: not a model, and holds no modules that could be.
        is_exported: an exported program, which refuses `eval()` and says that it is in training mode all its life.
        about: how its input is read.
        last: the last layer of a chain of modules, by class name: "" where that cannot be known.
        is_stale: the version has to be made again, whatever the parameters tell.
        is_moving: that is so since calls in training mode change buffers; it matters when that is over.
        has_buffers: the version depends on more than parameters.
    """

    __slots__ = (
        *("_probes", "about", "has_buffers", "is_bare", "is_exported", "is_model", "is_moving", "is_stale", "last"),
        *("model", "module"),
    )

    def __init__(self, module: Any, forget: Callable[[Any], None], settings: Settings) -> None:
        self.module = weakref.ref(module, forget)
        model = unwrap(module)
        self.model = weakref.ref(model)
        self.is_model = is_model(module, model, settings)
        self.is_bare = not self.is_model and not _modules_of(module)
        self.is_exported = _is_exported(model)
        self.about = about(model)
        self.last = _last(model)
        self.is_stale = self.is_moving = self.has_buffers = False
        self._probes: tuple[_Probe, ...] = ()

    def is_fresh(self) -> bool:
        """Whether the parameters are, as far as two of them tell, what they were when the version was made."""
        # A version for each batch that batch statistics are made of would be too many.
        if self.is_stale and not (self.is_moving and read(self.module(), "training") is True):
            return False
        try:
            for reference, version, owner, name in self._probes:
                # What is gone is None, which has no version and no parameters.
                tensor: Any = reference()
                holder: Any = None if owner is None else owner()
                if tensor._version != version:
                    return False
                now = None if owner is None else holder._parameters.get(name)
                # A plain tensor in its place is there for this call only (torch.func.functional_call).
                if now is not tensor and type(now) is type(tensor):
                    return False
        except (AttributeError, RuntimeError):
            return False
        return True

    def note(self, model: Any) -> None:
        """The version has just been made; not for long, where values are yet to come or this call changes buffers."""
        places = [
            (part, name, tensor)
            for _, part in modules_in(model)
            for name, tensor in table(part, "_parameters").items()
            if tensor is not None
        ]
        found = [tensor for _, _, tensor in places]
        self.has_buffers = sum(1 for _ in tensors_of(model)) > len(found)
        is_lazy = any(map(_is_lazy, found))
        self.is_moving = not is_lazy and self.has_buffers and read(self.module(), "training") is True
        self.is_stale = is_lazy or self.is_moving
        probes = []
        for part, name, tensor in (places[:1] + places[-1:])[:PROBES]:
            # Scripted modules have tables of another class, whose tensors nobody replaces.
            owner = weakref.ref(part) if isinstance(read(part, "_parameters"), dict) else None
            try:
                probes.append(_Probe(weakref.ref(tensor), int(tensor._version), owner, name))
            except (RuntimeError, TypeError):  # made in inference mode: nothing counts its changes
                continue
        self._probes = tuple(probes)


def unwrap(module: Any) -> Any:
    """The model that a compiled, parallel or averaged module stands for; the outermost one that the user named."""
    for _ in range(8):
        if registration(module) is not None:
            return module
        kind = type(module)
        place = _WRAPPERS.get(kind.__name__) if kind.__module__.startswith("torch") else None
        inner = None if place is None else _modules_of(module).get(place)
        if inner is None:
            return module
        module = inner
    return module


def is_model(module: Any, model: Any, settings: Settings) -> bool:
    """Whether calls of this module are predictions: the user's word, then ours."""
    if registration(model) is not None:
        return True
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    if any(fnmatchcase(name, pattern) for name in names for pattern in settings.torch_exclude):
        return False
    if any(fnmatchcase(name, pattern) for name in names for pattern in settings.torch_include):
        return True
    if any(kind.__module__.startswith(NO_MODELS) for kind in type(model).__mro__):
        return False
    # A module without parameters computes a loss, a metric or an activation. What is scripted or quantised keeps its
    # parameters elsewhere.
    for _, part in modules_in(module):
        if any(value is not None for value in table(part, "_parameters").values()):
            return True
        if type(part).__module__.startswith(("torch.jit", "torch.ao", "torchao")):
            return True
    return False


def is_excluded(module: Any, settings: Settings) -> bool:
    """Whether the user's own patterns say that calls of this class are no spans."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__}
    return any(fnmatchcase(name, pattern) for name in names for pattern in settings.torch_exclude)


def modules_in(module: Any) -> Iterator[tuple[str, Any]]:
    """Names and modules, the module itself first; each once."""
    waiting = [("", module)]
    seen: set[int] = set()
    while waiting and len(seen) < MAX_MODULES:
        prefix, part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield prefix, part
        children = [(f"{prefix}{name}.", child) for name, child in _modules_of(part).items() if child is not None]
        waiting.extend(reversed(children))


def tensors_of(module: Any) -> Iterator[tuple[str, Any]]:
    """Names and tensors that a model's answers depend on: parameters, persistent buffers, packed weights."""
    for prefix, part in modules_in(module):
        for name, value in table(part, "_parameters").items():
            if value is not None:
                yield prefix + name, value
        passing = read(part, "_non_persistent_buffers_set") or ()
        for name, value in table(part, "_buffers").items():
            if value is not None and name not in passing:
                yield prefix + name, value
        if type(part).__module__.startswith("torch.ao"):
            packed = read(part, "_packed_params")
            for at, value in enumerate(_unpacked(packed)):
                yield f"{prefix}packed{at}", value


@guarded("torch: fingerprint", None)
def fingerprint(model: Any) -> str | None:
    """The version of a model that was given none; None before it has values, or where a device must not be read now."""
    torch = sys.modules["torch"]
    hasher = blake2b(digest_size=DIGEST_BYTES)
    found = sorted(tensors_of(model), key=lambda pair: pair[0])
    if any(_is_lazy(tensor) for _, tensor in found):
        return None
    heads = [f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in found]
    samples: list[Any] = []
    on_devices: dict[Any, list[int]] = {}
    with torch.no_grad():
        for at, (_, tensor) in enumerate(found):
            try:
                samples.append(_sample(tensor))
            except (RuntimeError, TypeError, NotImplementedError, AttributeError):
                samples.append(None)  # of no data, or of a class of its own: name and shape must do
                continue
            if samples[-1] is not None and tensor.device.type != "cpu":
                on_devices.setdefault((tensor.device, samples[-1].dtype), []).append(at)
        for places in on_devices.values():
            # One copy for all: the host waits for the device here, once for each version.
            if _is_capturing(torch):
                return None
            joined = torch.cat([samples[at] for at in places]).cpu()
            start = 0
            for at in places:
                size = samples[at].numel()
                samples[at] = joined[start : start + size]
                start += size
        for head, sample in zip(heads, samples, strict=True):
            hasher.update(head.encode())
            if sample is not None:
                with suppress(RuntimeError, TypeError, NotImplementedError):  # while something is differentiated by it
                    hasher.update(np.ascontiguousarray(array_of(plain(sample))).tobytes())
    return FINGERPRINT_PREFIX + hasher.hexdigest()


def _is_lazy(tensor: Any) -> bool:
    """Whether it gets its shape and values at the first call (``LazyLinear``)."""
    return hasattr(tensor, "materialize")


def _sample(tensor: Any) -> Any:
    """At most SAMPLE values of a tensor, evenly spaced, in one dimension; None without data."""
    if tensor.device.type == "meta" or tensor.is_complex():
        return None
    tensor = tensor.detach()
    flat = tensor.reshape(-1) if tensor.is_contiguous() or tensor.numel() <= SAMPLE else tensor.flatten()
    step = -(-flat.numel() // SAMPLE) or 1
    return flat[::step]


def about(model: Any) -> About:
    """How the model's input is read; never raises."""
    told = registration(model)
    try:
        names = tuple(
            name
            for name, parameter in inspect.signature(type(model).forward).parameters.items()
            if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        )[1:]
    except (AttributeError, TypeError, ValueError):
        names = ()
    embeddings, pad = 0, read(read(model, "config"), "pad_token_id")
    try:
        for _, part in modules_in(model):
            if type(part).__name__ in {"Embedding", "EmbeddingBag"}:
                embeddings += 1
                pad = pad if isinstance(pad, int) else read(part, "padding_idx")
    except Exception:  # noqa: BLE001 - whatever a module's attributes do
        failed("torch: module")
    has_names = told is not None and told.feature_names is not None
    return About(names, told.input if told else None, embeddings, pad if isinstance(pad, int) else None, has_names)


def _last(model: Any) -> str:
    """The class of the layer that answers, where a chain of `Sequential` makes that certain."""
    for _ in range(16):
        if type(model).__name__ != "Sequential" or not _modules_of(model):
            return type(model).__name__ if type(model).__module__.startswith("torch.nn.modules") else ""
        model = list(_modules_of(model).values())[-1]
    return ""


def _is_exported(model: Any) -> bool:
    """Whether `ExportedProgram.module` made it, and nobody has given it modes since (as for quantised training)."""
    own = table(model, "__dict__").get("eval")
    return str(read(own, "__qualname__")).startswith("ExportedProgram.module.")


def _modules_of(module: Any) -> dict[str, Any]:
    return table(module, "_modules")


def table(module: Any, name: str) -> dict[str, Any]:
    """One of a module's own tables, as a dictionary; scripted modules have tables of another class."""
    found = read(module, name)
    if found is None:
        return {}
    try:
        return dict(found.items())
    except Exception:  # noqa: BLE001 - scripted and frozen modules
        return {}


def _unpacked(packed: Any) -> list[Any]:
    """Weight and bias of a quantised layer."""
    try:
        unpack = getattr(packed, "unpack", None) or getattr(packed, "_weight_bias", None)
        return [value for value in unpack() if value is not None] if unpack is not None else []
    except Exception:  # noqa: BLE001 - foreign packed parameters
        return []


def _is_capturing(torch: Any) -> bool:
    """Whether a CUDA graph is being recorded: nothing may wait for the device then."""
    cuda = getattr(torch, "cuda", None)
    return bool(cuda and cuda.is_available() and cuda.is_initialized() and cuda.is_current_stream_capturing())
