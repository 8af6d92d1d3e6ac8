# Every image of the project; docs/images.md says what each is for.
#
#     docker build --target standalone --tag clickbait-standalone .
#     docker build --target train --tag clickbait-train --build-arg PIP_FIND_LINKS=https://... .    # where wheels are to be had as well
#
# Targets: standalone, serve, train, bento, frontend, dev. Dependencies are installed before any code is copied, so a change of code rebuilds
# no environment. Neither heredocs nor COPY --link: Debian 12's buildah builds this file too (cluster/build_with_buildah.py).

# What every image stands on: the user, the folders, the variables. The base is named here and not in an ARG:
# Dependabot reads no ARG. The workflow `images` builds on the digest that this tag has then.
FROM python:3.11.14-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    HOME=/home/clickbait \
    USER=clickbait \
    ORT_DISABLE_TELEMETRY=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    WANDB_ERROR_REPORTING=false \
    BENTOML_DO_NOT_TRACK=true \
    STREAMLIT_BROWSER_GATHER_USAGE_STATS=false
# artifacts is writable, for volumes take over its owner; the code is not.
RUN groupadd --gid 1000 clickbait \
    && useradd --uid 1000 --gid 1000 --create-home --home-dir /home/clickbait --shell /bin/bash clickbait \
    && install --directory --owner=1000 --group=1000 /app/artifacts /app/artifacts/registry
WORKDIR /app

# What environments are made with.
FROM base AS installer
# Set by who builds, where it has to be: wheels nearby (a CPU build of torch), a second index. As variables, for the stages that stand on
# this one: not every builder hands them an argument.
ARG PIP_FIND_LINKS=""
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
# system certificates: a certificate authority of one's own is mounted where the others are.
ENV PIP_FIND_LINKS=${PIP_FIND_LINKS} \
    PIP_INDEX_URL=${PIP_INDEX_URL} \
    PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL} \
    PIP_CACHE_DIR=/var/cache/pip \
    UV_CACHE_DIR=/var/cache/uv \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    UV_SYSTEM_CERTS=1 \
    UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml constraints.txt README.md ./
COPY cluster/pins cluster/pins
RUN --mount=type=cache,target=/var/cache/pip \
    python -m venv /opt/uv \
    && /opt/uv/bin/pip install --disable-pip-version-check --only-binary=:all: --require-hashes \
       --requirement cluster/pins/uv.txt \
    && python -m venv --without-pip /opt/venv
COPY cluster/install_extras.sh /usr/local/bin/install-extras
COPY cluster/with_pip_settings.sh /usr/local/bin/with-pip-settings

FROM installer AS standalone-environment
RUN --mount=type=cache,target=/var/cache/uv install-extras standalone

FROM installer AS serve-environment
RUN --mount=type=cache,target=/var/cache/uv install-extras serve

FROM installer AS train-environment
RUN --mount=type=cache,target=/var/cache/uv install-extras serve,train

FROM installer AS bento-environment
RUN --mount=type=cache,target=/var/cache/uv install-extras bento

FROM installer AS frontend-environment
RUN --mount=type=cache,target=/var/cache/uv install-extras frontend

FROM train-environment AS dev-environment
RUN --mount=type=cache,target=/var/cache/uv install-extras dev

# The labels that every image has; the commit comes last of all, in each target, because it changes with every build.
FROM base AS image
ARG SOURCE=""
LABEL org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.vendor="clickbait-on-ray"

# The HTTP api under uvicorn, without Ray: Cloud Run, a container, a laptop.
FROM image AS standalone
LABEL org.opencontainers.image.title="clickbait-standalone" \
      org.opencontainers.image.description="Clickbait detector: the HTTP api under uvicorn, without Ray and torch"
COPY --from=standalone-environment /opt/venv /opt/venv
COPY clickbait clickbait
COPY serve serve
ENV CLICKBAIT_HOST=0.0.0.0
ARG GIT_COMMIT=""
ENV GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.revision="${GIT_COMMIT}"
USER 1000:1000
EXPOSE 8000
VOLUME /app/artifacts/registry
# Ready, not alive: who waits for it to be healthy wants answers. Cloud Run's PORT wins, as in serve.standalone.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + (os.environ.get('CLICKBAIT_PORT') or os.environ.get('PORT') or '8000') + '/readyz', timeout=4)"]
CMD ["python", "-m", "serve.standalone"]

# serve/on_ray/haproxy.py's, for every Ray that starts in an image: `serve deploy` then needs no switch.
FROM image AS ray
ENV RAY_SERVE_ENABLE_HA_PROXY=1 \
    RAY_SERVE_THROUGHPUT_OPTIMIZED=1 \
    RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S=5 \
    RAY_SERVE_HAPROXY_RETRY_ON="conn-failure empty-response response-timeout" \
    RAY_SERVE_HAPROXY_TUNE_BUFSIZE=32768 \
    RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S=10 \
    RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S=75 \
    RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER=1s \
    RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL=3 \
    RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S=1 \
    RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S=2 \
    RAY_SERVE_HAPROXY_NBTHREAD=1 \
    RAY_SERVE_CONTROL_LOOP_INTERVAL_S=0.5 \
    RAY_SERVE_HAPROXY_BINARY_PATH=/app/serve/on_ray/haproxy-launcher

# Ray Serve: head and workers of KubeRay's RayService, or one container by itself. No torch.
FROM ray AS serve
LABEL org.opencontainers.image.title="clickbait-serve" \
      org.opencontainers.image.description="Clickbait detector: Ray Serve behind HAProxy, without torch"
COPY --from=serve-environment /opt/venv /opt/venv
COPY clickbait clickbait
COPY serve serve
COPY configs configs
# All addresses of the container, which are nobody's until a port is published; on a laptop the file keeps to 127.0.0.1.
RUN sed --in-place 's/^  host: 127.0.0.1 .*/  host: 0.0.0.0/' configs/serve.yaml
ARG GIT_COMMIT=""
ENV GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.revision="${GIT_COMMIT}"
USER 1000:1000
EXPOSE 8000 8265 6379 10001 8080
VOLUME /app/artifacts/registry
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["serve", "run", "configs/serve.yaml"]

# The jobs, and Ray Serve beside them, so that one cluster of this image preprocesses, trains and serves.
FROM ray AS train
LABEL org.opencontainers.image.title="clickbait-train" \
      org.opencontainers.image.description="Clickbait detector: Ray Data, Ray Train and Ray Tune jobs, with torch"
COPY --from=train-environment /opt/venv /opt/venv
COPY clickbait clickbait
COPY ray_jobs ray_jobs
COPY serve serve
COPY tuning tuning
COPY configs configs
RUN sed --in-place 's/^  host: 127.0.0.1 .*/  host: 0.0.0.0/' configs/serve.yaml
# Where GKE and Vertex AI mount the driver of a GPU: pip's CUDA finds no libcuda.so.1 without it. Elsewhere the folder is not there.
ENV WANDB_DIR=/app/artifacts \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PATH=/usr/local/nvidia/bin:$PATH
ARG GIT_COMMIT=""
ENV GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.revision="${GIT_COMMIT}"
USER 1000:1000
EXPOSE 8000 8265 6379 10001 8080
VOLUME /app/artifacts
# A job answers nobody. What goes wrong from outside is the volume: a job that cannot write there trains for nothing.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s --retries=2 CMD ["test", "-w", "/app/artifacts"]
CMD ["python", "-m", "ray_jobs.train", "--config", "configs/train.yaml"]

# The same model under BentoML, to compare with.
FROM image AS bento
LABEL org.opencontainers.image.title="clickbait-bento" \
      org.opencontainers.image.description="Clickbait detector: the model under BentoML"
COPY --from=bento-environment /opt/venv /opt/venv
COPY clickbait clickbait
COPY serve serve
ENV BENTOML_HOME=/home/clickbait/bentoml
ARG GIT_COMMIT=""
ENV GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.revision="${GIT_COMMIT}"
USER 1000:1000
EXPOSE 3000
VOLUME /app/artifacts/registry
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:3000/readyz', timeout=4)"]
CMD ["bentoml", "serve", "serve.bento:Clickbait", "--host", "0.0.0.0", "--port", "3000"]

# The page that asks the api at CLICKBAIT_API_URL.
FROM image AS frontend
LABEL org.opencontainers.image.title="clickbait-frontend" \
      org.opencontainers.image.description="Clickbait detector: a Streamlit page that asks the api"
COPY --from=frontend-environment /opt/venv /opt/venv
COPY serve/__init__.py serve/frontend.py serve/
ENV CLICKBAIT_API_URL=http://127.0.0.1:8000 \
    STREAMLIT_SERVER_ADDRESS=0.0.0.0 \
    STREAMLIT_SERVER_PORT=8080 \
    STREAMLIT_SERVER_HEADLESS=true \
    STREAMLIT_SERVER_FILE_WATCHER_TYPE=none
ARG GIT_COMMIT=""
ENV GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.revision="${GIT_COMMIT}"
USER 1000:1000
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/_stcore/health', timeout=4)"]
CMD ["streamlit", "run", "serve/frontend.py"]

# A shell with everything that the checks and tests need, on a checkout that is mounted at /app.
FROM image AS dev
LABEL org.opencontainers.image.title="clickbait-dev" \
      org.opencontainers.image.description="Clickbait detector: the development environment"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git=1:2.* make=4.* curl=7.* \
    && rm -rf /var/lib/apt/lists/*
COPY --from=dev-environment /opt/venv /opt/venv
ARG GIT_COMMIT=""
ENV GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.revision="${GIT_COMMIT}"
USER 1000:1000
EXPOSE 8000 8265
HEALTHCHECK --interval=60s --timeout=30s --start-period=5s --retries=2 CMD ["python", "-c", "import pytest"]
CMD ["sleep", "infinity"]
