"""The settings of the server: arguments, then environment (`CLICKBAIT_<NAME>`), then the defaults.

    CLICKBAIT_MODEL=staging CLICKBAIT_THREADS=2 python -m serve.standalone

Arguments are the flags of `serve.standalone`, or those of `serve run`.
"""

from __future__ import annotations

import hashlib
import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from clickbait.config import Uri, did_you_mean, explain
from clickbait.errors import ConfigError
from clickbait.text import MAX_CHARACTERS

PREFIX = "CLICKBAIT_"
SERVICE_LINK = "tcp://"
CLIENT_KEY = "CLICKBAIT_API_KEY"  # what the front end sends (`serve.frontend`)


class Settings(BaseSettings):
    """Every limit is a field, and its docstring gives the reason for its default."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    registry: Uri = "artifacts/registry"
    """Where versions and aliases are kept: a path or URI. The pipeline publishes there."""
    model: str = Field("production", min_length=1, max_length=64)
    """What is served: an alias (`production`), a version (`v3`) or `latest`."""
    runtime: str | None = None
    """`int8`, `fp32` or `torch` (which needs the `train` extra); None takes what the version was exported
    for, and fp32 on a GPU.
    """
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model computes. `cuda` needs onnxruntime-gpu in onnxruntime's place, or `runtime` torch."""
    share_weights: bool = True
    """Replicas on one machine map one copy of the weights, made once below the system's temporary folder;
    false keeps a copy in each.
    """
    threads: int = Field(1, ge=1, le=256)
    """Compute threads of a replica. A small model does not get faster with more; one replica a core does."""
    max_characters: int = Field(MAX_CHARACTERS, ge=1, le=100_000)
    """Characters of a text, counted after cleaning. What is longer is an article, and attention costs its
    square.
    """
    max_texts: int = Field(256, ge=1, le=10_000)
    """Texts in a batch request: a fifth of a second's work of one core with the default model."""
    max_body_bytes: int = Field(1 << 20, ge=64, le=1 << 30)
    """Bytes of a body: 256 texts of 512 characters take half of it in UTF-8, and three quarters as
    \\uXXXX.
    """
    max_waiting: int = Field(256, ge=1, le=100_000)
    """Requests that may wait for the model in one replica. It bounds the memory for their texts, and the wait
    of single headlines: a third of a second at 800 headlines a second. Whether a request can be answered in
    time is judged by its work (`serve.core.batching`)."""
    batch_tokens: int | None = Field(None, ge=1, le=1 << 20)
    """Tokens computed at a time, padding counted; None: 256 on a CPU core, some 17 headlines, and 16,384 on a
    GPU. Fewer give less a second, and for more a new request waits longer than the 10 to 15 ms of the batch
    before it."""
    timeout_s: float = Field(5.0, gt=0.0, le=600.0)
    """Seconds from a request's first byte to its answer. Who waited longer has gone, and is not computed."""
    retry_after_s: int = Field(1, ge=0, le=3600)
    """The least `Retry-After` of 429 and 503, in seconds. A 429 names more where the work that waits takes
    longer.
    """
    api_keys: SecretStr = Field(SecretStr(""), exclude=True)
    """Keys that a client must send (`Authorization: Bearer` or `X-API-Key`), with commas between; none asks
    for none. Excluded from every dump: only their digests reach Ray's state (`for_replica`)."""
    api_keys_file: Annotated[str, AfterValidator(os.path.abspath)] | None = Field(None, min_length=1)
    """A file with more keys, one per line, such as a mounted secret. A change is noticed within a second or
    so, without a restart. Under Ray Serve it is read on each machine that has a replica."""
    api_key_digests: str = Field("", pattern="^([0-9a-f]{64}(,[0-9a-f]{64})*)?$")
    """SHA-256 digests of more keys, in hexadecimal with commas between, for a configuration that must hold no
    secret. Such keys must be random: the word behind a digest can be guessed."""
    api_keys_required: bool = False
    """Do not start without keys: a server that should have keys and was given none is open to everybody."""
    poll_s: float = Field(10.0, ge=0.0, le=86_400.0)
    """Seconds between two looks at where an alias points, give or take a fifth, so that replicas do not all
    look at once; 0: never.
    """
    canary: str | None = Field(None, min_length=1, max_length=64)
    """A second alias or version that answers `canary_share` of the requests; None: nobody."""
    canary_share: float = Field(0.05, ge=0.0, le=1.0)
    """Share of the requests that go to the canary."""
    shadow: str | None = Field(None, min_length=1, max_length=64)
    """A second alias or version that computes `shadow_share` of the requests too, after they are answered;
    only logs and metrics see it.
    """
    shadow_share: float = Field(0.1, ge=0.0, le=1.0)
    """Share of the requests that the shadow computes: what it costs of the core."""
    max_words: int = Field(64, ge=1, le=1024)
    """Words of a text that `/explain` takes: each is one more text to score."""
    host: str = Field("127.0.0.1", min_length=1)
    """Interface to listen on. This machine only, until somebody chooses otherwise: without `api_keys` anybody
    who reaches it may ask.
    """
    port: int = Field(8000, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    keep_alive_s: int = Field(75, ge=1, le=3600)
    """Seconds that a connection is kept without a request, as nginx does. Whatever keeps connections to the
    server must keep them for less, or it sends a request into a connection that is just closed: behind a load
    balancer that keeps them 600 s, as Google's do, give 620."""

    shared_port: int | None = Field(None, ge=1, le=65_535)
    """Under Ray Serve: a port that a machine's replicas share, past HAProxy (`serve.on_ray.shared_port`), on
    `host`; None: there is none.
    """

    @field_validator("port", "shared_port", mode="before")
    @classmethod
    def _is_no_service_link(cls, value: Any, info: ValidationInfo) -> Any:
        """Ignores the address that Kubernetes sets in every pod beside a Service of this name.

        For example, CLICKBAIT_PORT=tcp://10.0.0.1:8000.
        """
        if isinstance(value, str) and value.startswith(SERVICE_LINK):
            return cls.model_fields[info.field_name or ""].default
        return value

    @field_validator("api_keys")
    @classmethod
    def _has_a_key(cls, keys: SecretStr) -> SecretStr:
        given = keys.get_secret_value()
        if given and not split(given.encode()):  # as "$ONE,$TWO" where neither is set
            raise ValueError(
                "there is no key in it: give keys with commas between, or leave it empty for a server that "
                "is open to everybody"
            )
        return keys

    @field_validator("api_key_digests")
    @classmethod
    def _has_no_digest_of_nothing(cls, digests: str) -> str:
        if digest(b"") in digests:  # as `printf %s "$KEY" | sha256sum` where KEY is not set
            raise ValueError(
                "one is the digest of an empty key, which everybody has: make it again from a key"
            )
        return digests

    @property
    def keyed(self) -> bool:
        """Whether a client must send a key."""
        return bool(self.digests or self.api_keys_file or self.api_keys_required)

    @property
    def digests(self) -> frozenset[str]:
        """The SHA-256 digests of every key but those in the file."""
        given = {digest(key) for key in split(self.api_keys.get_secret_value().encode())}
        return frozenset(given | set(filter(None, self.api_key_digests.split(","))))

    def for_replica(self) -> dict[str, Any]:
        """The settings for a replica on another machine, with digests in place of keys.

        If there are keys, a replica accepts no others from its own machine's environment.
        """
        chosen = self.model_dump()
        if self.keyed:
            chosen |= {
                "api_keys": "",
                "api_key_digests": ",".join(sorted(self.digests)),
                "api_keys_required": True,
            }
        return chosen


def split(keys: bytes) -> list[bytes]:
    """Keys with commas or line ends between, without blanks around them."""
    return [key.strip() for line in keys.splitlines() for key in line.split(b",") if key.strip()]


def digest(key: bytes) -> str:
    """What is kept of a key, and compared."""
    return hashlib.sha256(key).hexdigest()


def load(**given: Any) -> Settings:
    """The settings, with `given` over the environment.

    Raises:
        ConfigError: an unknown name in `given` or an unknown variable about keys (the message names the one
            meant), or a value that does not fit, by its variable.
    """
    _check_key_variables()
    try:
        return Settings(**given)
    except ValidationError as error:
        where = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        from_environment = sorted(
            _variable(name) for name in where - given.keys() if name in Settings.model_fields
        )
        prefix = f"{', '.join(from_environment)}: " if from_environment else ""
        raise ConfigError(f"{prefix}{explain(Settings, error)}") from None


def _check_key_variables() -> None:
    """Raises ConfigError for a variable whose name is almost one of those about keys.

    Otherwise the server would be open, and its owner would not know.
    """
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | {CLIENT_KEY}
    for name in os.environ:
        if name.upper().replace("_", "").startswith("CLICKBAITAPIKEY") and name.upper() not in known:
            raise ConfigError(f"{name}: unknown variable{did_you_mean(name.upper(), sorted(known))}")


def _variable(name: str) -> str:
    """The variable as it is spelt in the environment: the case is free."""
    wanted = f"{PREFIX}{name}".upper()
    return next((key for key in os.environ if key.upper() == wanted), wanted)
