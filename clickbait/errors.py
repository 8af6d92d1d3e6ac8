"""The exception tree: all errors that a user or a client can cause.

Every message says how to fix the problem. A job prints the message as one line and exits with 2, or with 1
for `Refused` (`clickbait.cli`). The HTTP API maps the class to a status (`serve.http.api`). A state that only
a bug can cause is an `assert`, not one of these errors.

    ClickbaitError (ValueError)
    ├── ConfigError            a YAML key, a flag or a setting is not valid
    ├── DataError              a source cannot be read, a column is missing, or a dataset is incomplete
    ├── ModelError             a base model is not available, or is a pickle instead of safetensors
    ├── StorageError           a URI cannot be read or written
    │   ├── NotFound           there is no object with this key
    │   ├── DiskFull           there is not enough free space
    │   └── PreconditionFailed the object changed since it was read
    ├── RunInUse               another process is writing this training run
    │   └── LeaseLost          another process has taken over this training run
    ├── TrainingDiverged       the loss is not a finite number
    ├── BundleError            a model version is not intact: a file is missing or has changed
    ├── RegistryError          a version or an alias does not exist
    │   └── AliasConflict      the alias moved since it was read
    ├── PortInUse              another process listens on this port
    ├── Refused                the gate or a check refused; nothing is broken
    └── RequestError           a client of the HTTP API sent a bad request (statuses: serve.http.api)
        ├── BadRequest         not JSON, not in the route's format, or not Unicode
        ├── Unauthorized       the API key is missing or wrong
        ├── UnknownModel       the name of another model, or a version that is not served
        ├── UnsupportedMediaType the content type is not JSON, or the body is compressed
        ├── InvalidText        a text is empty or too long
        ├── TooManyTexts       the batch has too many texts
        ├── BodyTooLarge       the body has too many bytes
        ├── Overloaded         the queue is longer than the replica can process in time
        ├── DeadlineExceeded   there was no answer before the deadline
        └── NotReady           no model is loaded
"""

from __future__ import annotations


class ClickbaitError(ValueError):
    """An error that a user can cause. The message says how to fix it."""


class ConfigError(ClickbaitError):
    """A YAML key, a flag or a setting is not valid."""


class DataError(ClickbaitError):
    """A source cannot be read, a column is missing, or a dataset is incomplete."""


class ModelError(ClickbaitError):
    """A base model is not available, or is a pickle instead of safetensors."""


class StorageError(ClickbaitError):
    """A URI cannot be read or written."""


class NotFound(StorageError):
    """There is no object with this key."""


class DiskFull(StorageError):
    """There is not enough free space."""


class PreconditionFailed(StorageError):
    """The object changed since it was read."""


class RunInUse(ClickbaitError):
    """Another process is writing this training run."""


class LeaseLost(RunInUse):
    """Another process has taken over this training run."""


class TrainingDiverged(ClickbaitError):
    """The loss is not a finite number."""


class BundleError(ClickbaitError):
    """A model version is not intact: a file is missing or has changed."""


class RegistryError(ClickbaitError):
    """A version or an alias does not exist."""


class AliasConflict(RegistryError):
    """The alias moved since it was read. Read it again, then decide again."""


class PortInUse(ClickbaitError):
    """Another process listens on this port."""


class Refused(ClickbaitError):
    """The gate or a check refused. This is a result and not a failure, so the exit code is 1 and not 2."""


class RequestError(ClickbaitError):
    """A client of the HTTP API sent a request that cannot be answered."""


class BadRequest(RequestError):
    """The body is not JSON, not in the route's format, or not Unicode."""


class Unauthorized(RequestError):
    """The API key is missing or wrong."""


class UnknownModel(RequestError):
    """The request names another model, or a version that is not served."""


class UnsupportedMediaType(RequestError):
    """The content type is not JSON, or the body is compressed."""


class InvalidText(RequestError):
    """A text is empty or too long."""


class TooManyTexts(RequestError):
    """The batch has too many texts."""


class BodyTooLarge(RequestError):
    """The body has too many bytes."""


class Overloaded(RequestError):
    """The queue is longer than the replica can process in time.

    `retry_after_s` is the number of seconds after which the request can succeed. 0 means unknown.
    """

    def __init__(self, message: str, *, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestError):
    """There was no answer before the deadline."""


class NotReady(RequestError):
    """No model is loaded."""
