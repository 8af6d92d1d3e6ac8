"""Errors of other libraries that a user can fix, and how. Classes are listed by name, without importing them.

A job raises `ClickbaitError` for the problems that it expects. This table covers the rest: a full disk, a
bucket without permission, a file that pyarrow cannot read. Every other error is a bug of this program
(`clickbait.cli.exit_code`).
"""

from __future__ import annotations

from collections.abc import Iterator

from clickbait.errors import ClickbaitError

_NETWORK = "check the network, the address and the proxy settings"
_FILE = "check that the file is complete and has the format that its name says"
_MEMORY = "use fewer workers or smaller batches, or a machine with more memory"
_RAY = "start the same command again: it continues where it can"
_CLOUD = "check the bucket's name and this account's permissions"
_MODEL = "the model cannot be loaded or computed here: export it again, or choose another runtime"
_STORE = "check the path, its owner and the free space"

# Full name of an error class -> what the user can do. An entry also covers subclasses: the first class in the
# method resolution order that has an entry decides. So OSError also covers gzip.BadGzipFile and others.
FIXES = {
    "builtins.ConnectionError": _NETWORK,
    "builtins.TimeoutError": _NETWORK,
    "builtins.OSError": _STORE,
    "builtins.MemoryError": _MEMORY,
    "builtins.UnicodeDecodeError": _FILE,
    "_csv.Error": _FILE,
    "json.decoder.JSONDecodeError": _FILE,
    "yaml.error.YAMLError": _FILE,
    "zipfile.BadZipFile": _FILE,
    "zlib.error": _FILE,
    "socket.gaierror": _NETWORK,
    "ssl.SSLError": _NETWORK,
    "http.client.HTTPException": _NETWORK,
    "urllib.error.URLError": _NETWORK,
    "requests.exceptions.RequestException": _NETWORK,
    "urllib3.exceptions.HTTPError": _NETWORK,
    "aiohttp.client_exceptions.ClientError": _NETWORK,
    "httpx.HTTPError": _NETWORK,
    "httpx2.HTTPError": _NETWORK,
    "grpc.RpcError": _NETWORK,
    "google.api_core.exceptions.GoogleAPIError": _CLOUD,
    "google.auth.exceptions.GoogleAuthError": "log in to Google Cloud: gcloud auth application-default login",
    "google.cloud.exceptions.GoogleCloudError": _CLOUD,
    "pyarrow.lib.ArrowException": _FILE,
    "safetensors._safetensors_rust.SafetensorError": _FILE,
    "huggingface_hub.errors.HfHubHTTPError": _NETWORK,
    "huggingface_hub.errors.LocalEntryNotFoundError": _NETWORK,
    "torch.OutOfMemoryError": _MEMORY,
    "torch.cuda.OutOfMemoryError": _MEMORY,
    "wandb.errors.errors.Error": "check WANDB_API_KEY and the project, or set WANDB_MODE=offline",
    "optuna.exceptions.StorageInternalError": _STORE,
    **{
        f"onnxruntime.capi.onnxruntime_pybind11_state.{name}": _MODEL
        for name in (
            "EPFail",
            "Fail",
            "InvalidGraph",
            "InvalidProtobuf",
            "ModelLoaded",
            "NoModel",
            "NoSuchFile",
            "NotImplemented",
        )
    },
    "ray.exceptions.OutOfMemoryError": _MEMORY,
    "ray.exceptions.ObjectStoreFullError": _MEMORY,
    "ray.exceptions.OutOfDiskError": _STORE,
    "ray.exceptions.RuntimeEnvSetupError": "check the runtime environment that the job was submitted with",
    "ray.exceptions.AuthenticationError": (
        "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's token (docs/jobs.md)"
    ),
    "ray.exceptions.RaySystemError": _RAY,
    **{
        f"ray.exceptions.{name}": _RAY
        for name in (
            "WorkerCrashedError",
            "ActorDiedError",
            "ActorUnavailableError",
            "NodeDiedError",
            "ObjectLostError",
            "GetTimeoutError",
        )
    },
}
# An ActorDiedError with this text means that the actor's __init__ raised: a bug, not a lost machine.
_ACTOR_INIT_FAILED = "creation task"
_MAX_CHARACTERS = 400  # longest message of another library that is shown


def unwrap(error: BaseException) -> BaseException:
    """The error that the user can act on, without the errors that Ray wraps around it.

    Ray wraps errors of tasks, actors, and workers of Ray Train and Ray Data. Returns the first
    `ClickbaitError`, else the first error that has an entry in `FIXES`, else the innermost error.
    """
    chain = list(_chain(error, set()))
    for item in chain:
        if isinstance(item, ClickbaitError):
            return item
    for item in chain:
        if fix(item) is not None:
            return item
    return chain[0]


def fix(error: BaseException) -> str | None:
    """What the user can do about the error. None means that the error is a bug of this program."""
    if type(error).__name__ == "ActorDiedError" and _ACTOR_INIT_FAILED in text(error):
        return None
    for ancestor in type(error).__mro__:
        if (advice := FIXES.get(f"{ancestor.__module__}.{ancestor.__qualname__}")) is not None:
            return advice
    return None


def line(error: BaseException) -> str:
    """The error's class and message in one line, cut to a readable length."""
    message, name = text(error), type(error).__name__
    dots = "..." if len(message) > _MAX_CHARACTERS else ""
    return f"{name}: {message[:_MAX_CHARACTERS]}{dots}" if message else name


def text(error: BaseException) -> str:
    """The error's message in one line. Empty if the error's `__str__` fails."""
    try:
        return " ".join(str(error).split())
    except Exception:  # must not hide the error itself
        return ""


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """The errors that Ray wrapped into `error`. A wrapper itself is only returned if it has no cause."""
    if id(error) in seen:
        return
    seen.add(id(error))
    inner: list[object] = []
    if type(error).__module__.startswith("ray.") or isinstance(getattr(error, "cause", None), BaseException):
        # RayTaskError has `cause`, WorkerGroupError `worker_failures`, ControllerError `controller_failure`,
        # and errors of Ray Data `__cause__`.
        failures = getattr(error, "worker_failures", None)
        inner = [getattr(error, "cause", None), getattr(error, "controller_failure", None), error.__cause__]
        inner += list(failures.values()) if isinstance(failures, dict) else []
    elif isinstance(error, BaseExceptionGroup):
        inner = list(error.exceptions)
    causes = [item for item in inner if isinstance(item, BaseException)]
    for item in causes:
        yield from _chain(item, seen)
    if not causes:
        yield error
