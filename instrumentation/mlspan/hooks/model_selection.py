"""Stage 1, cross-validation: what the user's evaluation found, for the reference profiles of his models.

Wraps ``cross_validate``, ``cross_val_score`` and ``cross_val_predict`` of ``sklearn.model_selection``, only when a
folder for references is set, and when scikit-learn is imported. Guarantee: the same result or exception; `uninstall`
puts the originals back. Names that were imported from there before are not reached.
"""

import functools
import inspect
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mlspan.hooks.base import when_imported
from mlspan.reference import after_cross_validation, evaluating

if TYPE_CHECKING:
    from mlspan.config import Settings

MODULE: Final = "sklearn.model_selection"
FUNCTIONS: Final = ("cross_validate", "cross_val_score", "cross_val_predict")

_installed: list[tuple[types.ModuleType, str, Any, Any]] = []
_is_on = False


def install(settings: "Settings") -> None:
    """Wrap the functions now or when they are imported; nothing without a folder for references."""
    global _is_on  # noqa: PLW0603 - one process, one set of functions
    if settings.reference_dir is None or not settings.capture_content:
        return
    _is_on = True
    when_imported(MODULE, _wrap_all)


def uninstall() -> None:
    """Put the originals back where nobody else has replaced them since."""
    global _is_on  # noqa: PLW0603
    _is_on = False
    while _installed:
        module, name, original, replacement = _installed.pop()
        if vars(module).get(name) is replacement:
            setattr(module, name, original)


def _wrap_all(module: types.ModuleType) -> None:
    if not _is_on or any(known is module for known, *_ in _installed):
        return
    for name in FUNCTIONS:
        original = vars(module).get(name)
        if original is not None:
            replacement = _wrap(name, original)
            setattr(module, name, replacement)
            _installed.append((module, name, original, replacement))


def _wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        try:
            with evaluating():
                result = original(*args, **kwargs)
        except BaseException as error:
            # Our frame stands first in the traceback: the user sees his own only.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        after_cross_validation(name, signature.bind(*args, **kwargs).arguments, result)
        return result

    evaluate.__module__ = MODULE  # pickle stores a function by the place where it is found, and it is found here
    return evaluate
