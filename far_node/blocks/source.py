"""Where a model comes from, and what makes it the same model on two machines.

A model is a local directory, the id of a hub repository, or the name of a bundled one. Its ``digest`` covers
``config.json`` and the SHA-256 of every safetensors file, so two nodes can be put in one route only when their weights
are the same; names and paths do not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from far_node.errors import ModelNotFound, ModelUnsupported, UnsafeWeights

BUNDLED_MODEL = "far-demo"
_DIGEST_DOMAIN = b"far-mesh/model/v1\n"
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_BLOCK_COUNT_NAMES = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_UNSAFE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack"}


@dataclass(frozen=True)
class ModelSource:
    """A model on this disk: its public ``id``, its directory and the digest of its weights (SHA-256, hex)."""

    id: str
    path: Path
    digest: str


def bundled_model_path() -> Path:
    """The directory of the small model that comes with the package."""
    return Path(str(resources.files("far_node") / "bundled" / BUNDLED_MODEL))


def find_model(model: str, model_id: str | None = None) -> ModelSource:
    """Find ``model`` (directory, hub id or bundled name), download it if it is on a hub, and identify it.

    Raises:
        ModelNotFound: neither a directory with a config.json nor a reachable hub repository.
        UnsafeWeights: no safetensors file in it.
    """
    path, name = _locate(model)
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise UnsafeWeights(_no_safetensors(path), path=str(path))
    return ModelSource(model_id or name, path, _digest_of([path / "config.json", *weights]))


def block_count_of(source: ModelSource) -> int:
    """How many blocks the model has, read from its config.json alone, for those who need not load transformers.

    Raises:
        ModelUnsupported: the file does not say.
    """
    try:
        config = json.loads((source.path / "config.json").read_text())
        decoder = config.get("text_config", config)
        return next(int(decoder[name]) for name in _BLOCK_COUNT_NAMES if name in decoder)
    except (OSError, ValueError, TypeError, AttributeError, StopIteration):
        raise ModelUnsupported(f"the config.json of {source.id} does not say how many layers there are") from None


def _locate(model: str) -> tuple[Path, str]:
    directory = Path(model).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise ModelNotFound(f"{directory} holds no config.json, so it is not a model directory", model=model)
        return directory.resolve(), directory.resolve().name
    if model == BUNDLED_MODEL:
        return bundled_model_path(), BUNDLED_MODEL
    if not model or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelNotFound(f"there is no model at {model!r}: give a directory, a hub id (owner/name) or far-demo")
    return _download(model), model


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFound(
            f"{repository!r} is neither a directory nor a model that the hub gives us: {reason}", model=repository
        ) from None


def _no_safetensors(path: Path) -> str:
    unsafe = sorted(file.name for file in path.iterdir() if file.suffix in _UNSAFE_SUFFIXES)
    found = f" (found {', '.join(unsafe[:3])}, which can run code when loaded)" if unsafe else ""
    return f"{path} holds no .safetensors file{found}; convert the weights to safetensors"


def _digest_of(files: list[Path]) -> str:
    digest = hashlib.sha256(_DIGEST_DOMAIN)
    with _DigestCache() as cache:
        for file in files:
            digest.update(f"{cache.sha256(file)}  {file.name}\n".encode())
    return digest.hexdigest()


class _DigestCache:
    """SHA-256 of files by path, size and times, so that a 140 GB model is not read again at each start."""

    def __init__(self) -> None:
        base = os.environ.get("FAR_CACHE_DIR") or Path.home() / ".cache" / "far-mesh"
        self._path = Path(base) / "digests.json"
        self._known: dict[str, str] = {}
        self._changed = False

    def __enter__(self) -> _DigestCache:
        try:
            loaded = json.loads(self._path.read_text())
            self._known = {str(key): str(value) for key, value in loaded.items()}
        except (OSError, ValueError, AttributeError):
            self._known = {}
        return self

    def __exit__(self, *_: object) -> None:
        if not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(self._known))
            fresh.replace(self._path)
        except OSError:  # a cache that cannot be written only costs time
            return

    def sha256(self, file: Path) -> str:
        """Hexadecimal SHA-256 of a file."""
        status = file.stat()
        # the time of change as well: a file can be replaced by one that was given the same age
        key = f"{file.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
        if key not in self._known:
            with file.open("rb") as opened:
                self._known[key] = hashlib.file_digest(opened, "sha256").hexdigest()
            self._changed = True
        return self._known[key]
