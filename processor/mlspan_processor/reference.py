"""Stage 5: what "normal" is, per model version: profiles from files, and where learnt ones are kept.

Reads ``reference.path`` (a file or a folder of ``*.json``) and ``reference.save_dir``; out comes the Profile
of a model version. Files are looked at again at every `rescan`, and read when their size or time of change
differs; a file that cannot be read is logged once and counted, the profile read before stays. A profile
without a version is for every version of its model that has none of its own. Bounded: 10,000 files.
`build_reference` makes such a file from a table.
"""

import logging
import os
import re
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from mlspan.profile import Profile, from_json, to_json
from mlspan_processor.cells import Reference
from mlspan_processor.reference_sample import read_sample, sample_path
from mlspan_processor.sample import Sample

__all__ = ["ReferenceBook", "build_reference"]

MAX_FILES: Final = 10_000
_log = logging.getLogger(__name__)
_Signature = tuple[int, int]


class ReferenceBook:
    """Profiles by model version."""

    def __init__(self, path: Path | None, save_dir: Path | None) -> None:
        self._path = path
        self._save_dir = save_dir
        self._files: dict[Path, tuple[_Signature, Profile | None]] = {}
        self._profiles: dict[tuple[str, str], Profile] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self.unreadable = 0
        if path is not None and not path.exists():
            _log.warning('reference.path: "%s" is not there yet; it is looked for at every flush', path)

    def find(self, name: str, version: str) -> Profile | None:
        """The profile of a model version, or None."""
        return self._profiles.get((name, version)) or self._profiles.get((name, ""))

    def sample(self, name: str, version: str) -> Sample | None:
        """The labelled rows beside that profile, or None."""
        path = self._paths.get((name, version)) or self._paths.get((name, ""))
        return None if path is None else read_sample(sample_path(path))

    def rescan(self) -> bool:
        """Look for new, changed and removed files; returns whether any profile changed."""
        found: dict[Path, _Signature] = {}
        # Learnt profiles first: one that the user gives for the same model version takes their place.
        for place in (self._save_dir, self._path):
            for file in _files(place):
                try:
                    status = file.stat()
                except OSError:
                    continue
                found[file] = (status.st_mtime_ns, status.st_size)
        if {file: signature for file, (signature, _) in self._files.items()} == found:
            return False
        files: dict[Path, tuple[_Signature, Profile | None]] = {}
        for file, signature in found.items():
            known = self._files.get(file)
            if known is not None and known[0] == signature:
                files[file] = known
            else:
                files[file] = signature, self._read(file) or (known[1] if known else None)
        self._files = files
        self._index()
        return True

    def save(self, profile: Profile) -> None:
        """Keep a learnt profile in `save_dir`, if there is one; a failure is logged."""
        if self._save_dir is None:
            return
        file = self._save_dir / file_name(profile.model_name, profile.model_version)
        try:
            self._save_dir.mkdir(parents=True, exist_ok=True)
            write(profile, file)
            status = file.stat()
        except OSError as error:
            _log.warning('reference.save_dir: cannot write "%s": %s', file, error)
            return
        self._files[file] = (status.st_mtime_ns, status.st_size), profile
        self._index()

    def _index(self) -> None:
        self._profiles = {
            (profile.model_name, profile.model_version): profile
            for _, profile in self._files.values()
            if profile is not None
        }
        self._paths = {
            (profile.model_name, profile.model_version): file
            for file, (_, profile) in self._files.items()
            if profile is not None
        }

    def _read(self, file: Path) -> Profile | None:
        try:
            profile = from_json(file.read_text("utf-8"))
            Reference(profile)  # what cannot be laid out must not come up again at every flush
        except (OSError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            self.unreadable += 1
            _log.warning('reference: "%s" is no profile: %s', file, error)
            return None
        return profile


def build_reference(data: Path, **options: Any) -> Profile:
    """A profile from a table: see reference_build.build_reference, whose arguments these are."""
    from mlspan_processor.reference_build import build_reference as build  # noqa: PLC0415 pyarrow takes 30 MB

    return build(data, **options)


def write(profile: Profile, file: Path) -> None:
    """Write a profile whole or not at all.

    Raises:
        OSError: the folder is not there or not writable.
    """
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(to_json(profile))
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_name(name: str, version: str) -> str:
    """A file name for a model version: readable, safe on any file system, distinct."""
    digest = blake2b(b"\0".join((name.encode(), version.encode())), digest_size=4).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{name}@{version}")[:80].lstrip(".")
    return f"{readable}-{digest}.json"


def _files(place: Path | None) -> list[Path]:
    if place is None:
        return []
    if place.is_dir():
        return sorted(file for file in place.glob("*.json") if not file.name.startswith("."))[:MAX_FILES]
    return [place] if place.exists() else []
