"""What the errors of other libraries mean to a user. By name, so that no library is imported to look at its
errors.

A job raises `ClickbaitError` for what it foresees. This table is the net below: a disk that is full, a bucket
without permission, a file that pyarrow cannot read. What is in neither is a fault of this program
(`clickbait.cli.exit_code`).
"""

from __future__ import annotations

from collections.abc import Iterator

from clickbait.errors import ClickbaitError

_NETWORK = "check the network, the address and the proxy settings"
_FILE = "check that the file is whole and of the kind that its name says"
_MEMORY = "use fewer workers or smaller batches, or a machine with more memory"
_RAY = "start the same command again: it goes on where it can"
_CLOUD = "check the bucket's name and this account's rights"
_MODEL = "the model cannot be loaded or computed here: export it again, or choose another runtime"
_STORE = "check the path, its owner and the free space"

# A class's full name, and what its user can do. Subclasses are meant too; the nearest name in the method
# resolution order decides. OSError stands for ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror,
# gzip.BadGzipFile and requests.RequestException.
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
    "ray.exceptions.AuthenticationError": "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's token (docs/jobs.md)",
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
_FIRST_ERROR_OF_AN_ACTOR = (
    "creation task"  # in the text of an ActorDiedError: its __init__ raised, so the machine is not to blame
)
_MOST = 400  # characters of another library's message


def unwrapped(error: BaseException) -> BaseException:
    """The error that a user can act on, out of what Ray wrapped around it in a task, an actor, a worker of
    Ray Train or of Ray Data.

    The first `ClickbaitError`; else the first error that `FIXES` has; else the innermost one that Ray
    carried.
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
    """What a user can do about it; None where the error is in no list, so it is a fault of this program."""
    if type(error).__name__ == "ActorDiedError" and _FIRST_ERROR_OF_AN_ACTOR in text(error):
        return None
    for ancestor in type(error).__mro__:
        if (known := FIXES.get(f"{ancestor.__module__}.{ancestor.__qualname__}")) is not None:
            return known
    return None


def line(error: BaseException) -> str:
    """The error's class and message in one line, cut to a readable length."""
    message, name = text(error), type(error).__name__
    return f"{name}: {message[:_MOST]}{'...' if len(message) > _MOST else ''}" if message else name


def text(error: BaseException) -> str:
    """The error's message in one line; empty where the error cannot say it."""
    try:
        return " ".join(str(error).split())
    except Exception:  # a class whose __str__ fails would hide what happened
        return ""


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """The errors that Ray carries inside `error`, innermost causes of a wrapper first, without the wrappers
    that have one.
    """
    if id(error) in seen:
        return
    seen.add(id(error))
    inner: list[object] = []
    if type(error).__module__.startswith("ray.") or isinstance(getattr(error, "cause", None), BaseException):
        # RayTaskError.cause; WorkerGroupError.worker_failures; ControllerError.controller_failure; Ray Data's
        # __cause__.
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
