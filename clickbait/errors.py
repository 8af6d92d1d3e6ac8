"""One exception tree for all that a user can cause.

Every message says what to do. A job prints it as one line and exits with 2, for `Refused` with 1
(`clickbait.cli`); the HTTP api maps it to a status (`serve.http.api`). What only a bug can cause is an
`assert`, never one of these.

    ClickbaitError (ValueError)
    ├── ConfigError            a YAML key, a flag or a setting that does not fit
    ├── DataError              a source that cannot be read, a column that is not there, a dataset that is not whole
    ├── ModelError             a base model that is not to be had, or a pickle where safetensors should be
    ├── StorageError           a URI that cannot be read or written
    │   ├── NotFound           nothing at that key
    │   ├── DiskFull           no space left for what is to be written
    │   └── PreconditionFailed the object changed since it was read
    ├── RunInUse               a training run that another process is writing
    │   └── LeaseLost          another process has taken the run over
    ├── TrainingDiverged       a loss that is not a number
    ├── BundleError            a model version that is not whole: a file missing, a byte changed
    ├── RegistryError          a version or an alias that is not there
    │   └── AliasConflict      the alias moved since it was read
    ├── PortInUse              somebody listens there already
    ├── Refused                the gate or a check said no; nothing is broken
    └── RequestError           what a client of the HTTP api can cause (serve.http.api holds the statuses)
        ├── BadRequest         not JSON, not of the route's shape, or not Unicode
        ├── Unauthorized       a key is asked for, and none was sent, or another
        ├── UnknownModel       another model's name, or a version that is not served
        ├── UnsupportedMediaType not JSON by its content type
        ├── InvalidText        empty or too long
        ├── TooManyTexts       more texts than a batch takes
        ├── BodyTooLarge       more bytes than a body takes
        ├── Overloaded         more work waits than the replica can do in time
        ├── DeadlineExceeded   the answer did not come in time
        └── NotReady           no model is loaded
"""

from __future__ import annotations


class ClickbaitError(ValueError):
    """What a user can cause; the message says how to mend it."""


class ConfigError(ClickbaitError):
    """A YAML key, a flag or a setting that does not fit."""


class DataError(ClickbaitError):
    """A source that cannot be read, a column that is not there, a dataset that is not whole."""


class ModelError(ClickbaitError):
    """A base model that is not to be had, or a pickle where safetensors should be."""


class StorageError(ClickbaitError):
    """A URI that cannot be read or written."""


class NotFound(StorageError):
    """Nothing at that key."""


class DiskFull(StorageError):
    """No space left for what is to be written."""


class PreconditionFailed(StorageError):
    """The object changed since it was read."""


class RunInUse(ClickbaitError):
    """Another process is writing this training run."""


class LeaseLost(RunInUse):
    """Another process has taken this training run over."""


class TrainingDiverged(ClickbaitError):
    """The loss is not a number any more."""


class BundleError(ClickbaitError):
    """A model version that is not whole: a file missing, a byte changed."""


class RegistryError(ClickbaitError):
    """A version or an alias that is not there."""


class AliasConflict(RegistryError):
    """The alias moved since it was read: read it again, then decide again."""


class PortInUse(ClickbaitError):
    """Somebody listens on that port already."""


class Refused(ClickbaitError):
    """The gate or a check said no: a result and not a failure, so its exit code is 1 and not 2."""


class RequestError(ClickbaitError):
    """What a client of the HTTP api can cause."""


class BadRequest(RequestError):
    """Not JSON, not of the route's shape, or not Unicode."""


class Unauthorized(RequestError):
    """A key is asked for, and none was sent, or another."""


class UnknownModel(RequestError):
    """Another model's name, or a version that is not served."""


class UnsupportedMediaType(RequestError):
    """Not JSON by its content type, or compressed."""


class InvalidText(RequestError):
    """Empty or too long."""


class TooManyTexts(RequestError):
    """More texts than a batch takes."""


class BodyTooLarge(RequestError):
    """More bytes than a body takes."""


class Overloaded(RequestError):
    """More work waits than the replica can do in time. `retry_after_s`: seconds after which it could take the
    request; 0: not known.
    """

    def __init__(self, message: str, *, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestError):
    """The answer did not come in time."""


class NotReady(RequestError):
    """No model is loaded."""
