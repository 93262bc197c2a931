"""Settings of the application side: one frozen object, made once, read by every stage.

Reads the keyword options of ``instrument(**options)``, then ``OTEL_INSTRUMENTATION_ML_*``, then the defaults below.
Guarantee: never raises; an unusable value is logged once with what would have been valid, and the next source counts.
OpenTelemetry's declarative configuration (``OTEL_CONFIG_FILE``) passes the fields of `Options` as keyword options.
"""

import importlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

PREFIX: Final = "OTEL_INSTRUMENTATION_ML_"
MAX_SCHEMAS: Final = 2_048
"""Tracers a process may hold: one for each model version and set of captured columns."""

PAYLOAD_OPERATIONS: Final = frozenset(
    {"predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "fit_predict"}
)
"""Methods whose span carries the captured rows."""
FIT_OPERATIONS: Final = frozenset({"fit", "fit_predict", "fit_transform", "partial_fit"})
"""Methods that change the model."""
OPERATIONS: Final = PAYLOAD_OPERATIONS | FIT_OPERATIONS | {"transform", "score"}
"""Methods that become spans by default."""
TRAIN: Final = "train"
"""A call of a torch module in training mode with gradients: a span only where the user asks for it."""
ALL_OPERATIONS: Final = OPERATIONS | {TRAIN}
STEPS: Final = 3
"""Levels of steps where the user only says that he wants them."""
MAX_STEPS: Final = 16
VALID_STEPS: Final = f"true, false, or a whole number to {MAX_STEPS}"
OUTPUTS: Final = ("auto", "probabilities", "log_probabilities", "logits", "labels", "values", "embedding")
"""What the output of a torch module may be."""

_logger = logging.getLogger(__name__)


class CaptureHook:
    """A hook named as ``module:function``, imported at its first call: instrumenting imports no user code."""

    __slots__ = ("_function", "path")

    def __init__(self, path: str) -> None:
        module, separator, name = path.partition(":")
        if not (module and separator and name):
            raise ValueError
        self.path = path
        self._function: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        if self._function is None:
            module, _, name = self.path.partition(":")
            target: Any = importlib.import_module(module)
            for part in name.split("."):
                target = getattr(target, part)
            self._function = target
        assert self._function is not None
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"CaptureHook({self.path!r})"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[_text(value).strip().lower()]


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError
    number = int(value)
    if number < 1:
        raise ValueError
    return number


def depth(value: object) -> int:
    """Levels of steps within a call: a whole number, or whether there are any.

    Raises:
        TypeError, ValueError, KeyError: it is neither.
    """
    if isinstance(value, str) and not value.strip().isdigit():
        value = _flag(value)
    if isinstance(value, bool):
        return STEPS if value else 0
    if not isinstance(value, (int, str)):
        raise TypeError
    number = int(value)
    if not 0 <= number <= MAX_STEPS:
        raise ValueError
    return number


def _patterns(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Iterable):
        raise TypeError
    return tuple(text for item in value if (text := _text(item).strip()))


def _operations(value: object) -> frozenset[str]:
    names = frozenset(_patterns(value))
    if not names or names - ALL_OPERATIONS:
        raise ValueError
    return names


def _key(value: object) -> bytes:
    key = value if isinstance(value, bytes) else _text(value).encode()
    if not 1 <= len(key) <= 64:
        raise ValueError
    return key


def _output(value: object) -> str:
    name = _text(value).strip()
    if name not in OUTPUTS:
        raise ValueError
    return name


def _hook(value: object) -> Callable[..., Any]:
    if isinstance(value, str):
        return CaptureHook(value.strip())
    if not callable(value):
        raise TypeError
    return value


def _field(default: Any, read: Callable[[object], Any], valid: str, variable: str) -> Any:
    return field(default=default, metadata={"read": read, "valid": valid, "variable": PREFIX + variable})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user wants of the application side.

    Attributes:
        model_name: name of every model that `instrument_model` gave none; None: the class's name.
        model_version: version of the same; None: a fingerprint of the fitted model.
        capture_content: False: no feature, prediction or class leaves the process, only counts.
        allow: patterns (`fnmatch`) of the features that may be captured; empty: all.
        deny: patterns of the features that may not; wins over `allow`.
        max_rows: captured rows a call.
        max_bytes: payload bytes a call.
        max_columns: captured columns a call.
        hash_key: key of the hash that replaces strings, 1 to 64 bytes.
        operations: methods that become spans.
        capture_hook: called with what is about to be recorded, before it is; see `mlspan.capture`.
        reference_dir: folder in which an instrumented fit leaves the model's reference profile.
        record_exceptions: record the exception (message and stack, which may hold data) on the span.
        capture_steps: levels of child spans for the parts of a model; 0: none; true: 3.
        capture_slow: look closer at the calls of a model that follow an unusually slow one; see `mlspan.slow`.
        torch_output: what the outputs of torch modules are, for modules that `instrument_model` was told nothing about.
        torch_include: patterns of the torch classes (``package.module.Class``) that are models, whatever our rules say.
        torch_exclude: patterns of those that are none; wins over `torch_include`.
    """

    model_name: str | None = _field(None, _text, "a text", "MODEL_NAME")
    model_version: str | None = _field(None, _text, "a text", "MODEL_VERSION")
    capture_content: bool = _field(True, _flag, "true or false", "CAPTURE_CONTENT")
    allow: tuple[str, ...] = _field((), _patterns, "patterns separated by commas", "CAPTURE_ALLOW")
    deny: tuple[str, ...] = _field((), _patterns, "patterns separated by commas", "CAPTURE_DENY")
    max_rows: int = _field(1024, _count, "a whole number from 1", "CAPTURE_MAX_ROWS")
    max_bytes: int = _field(131072, _count, "a whole number from 1", "CAPTURE_MAX_BYTES")
    max_columns: int = _field(1024, _count, "a whole number from 1", "CAPTURE_MAX_COLUMNS")
    hash_key: bytes = _field(b"mlspan", _key, "1 to 64 bytes", "HASH_KEY")
    operations: frozenset[str] = _field(
        OPERATIONS, _operations, "some of " + ", ".join(sorted(ALL_OPERATIONS)), "OPERATIONS"
    )
    capture_hook: Callable[..., Any] | None = _field(  # noqa: RUF009 - it makes a field
        None, _hook, "a function, or its place as module:function", "CAPTURE_HOOK"
    )
    reference_dir: str | None = _field(None, _text, "a folder", "REFERENCE_DIR")
    record_exceptions: bool = _field(False, _flag, "true or false", "RECORD_EXCEPTIONS")
    capture_steps: int = _field(0, depth, VALID_STEPS, "CAPTURE_STEPS")
    capture_slow: bool = _field(True, _flag, "true or false", "CAPTURE_SLOW")
    torch_output: str = _field("auto", _output, "one of " + ", ".join(OUTPUTS), "TORCH_OUTPUT")
    torch_include: tuple[str, ...] = _field((), _patterns, "patterns separated by commas", "TORCH_INCLUDE")
    torch_exclude: tuple[str, ...] = _field((), _patterns, "patterns separated by commas", "TORCH_EXCLUDE")


@dataclass
class Options:
    """The same settings as OpenTelemetry's declarative configuration may give them; None: not given."""

    model_name: str | None = None
    model_version: str | None = None
    capture_content: bool | None = None
    allow: list[str] | None = None
    deny: list[str] | None = None
    max_rows: int | None = None
    max_bytes: int | None = None
    max_columns: int | None = None
    hash_key: str | None = None
    operations: list[str] | None = None
    capture_hook: str | None = None
    reference_dir: str | None = None
    record_exceptions: bool | None = None
    capture_steps: int | bool | None = None
    capture_slow: bool | None = None
    torch_output: str | None = None
    torch_include: list[str] | None = None
    torch_exclude: list[str] | None = None


def load_settings(options: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings that these options and this environment (default: the process's) ask for; never raises."""
    options = options or {}
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        variable = setting.metadata["variable"]
        for source, given in ((setting.name, options.get(setting.name)), (variable, environ.get(variable))):
            if given is None or (isinstance(given, str) and not given.strip()):
                continue
            try:
                values[setting.name] = setting.metadata["read"](given)
            except Exception:  # noqa: BLE001 - the value is the user's, and may fail in any way
                # The value itself stays out of the log when it is a secret.
                shown = "…" if setting.name == "hash_key" else repr(given)
                _logger.warning("%s is %s; valid: %s", source, shown, setting.metadata["valid"])
                continue
            break
    unknown = sorted(set(options) - {setting.name for setting in fields(Settings)})
    if unknown:
        _logger.warning("unknown option %s; valid: %s", unknown, [setting.name for setting in fields(Settings)])
    return Settings(**values)
