# Two images: `airflow` for Airflow's components and the workers, `service` for the recommendation
# service, which has neither Airflow nor torch.
# To pin the base by digest: --build-arg PYTHON_IMAGE=python:3.11.13-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS service-packages
COPY docker/install_packages.sh requirements-service.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    sh /tmp/install_packages.sh --requirement /tmp/requirements-service.txt

FROM ${PYTHON_IMAGE} AS airflow-packages
# Where the CPU build of torch comes from, if the default index has only the large one.
ARG PIP_EXTRA_INDEX_URL
COPY docker/install_packages.sh requirements.txt requirements-cluster.txt requirements-torch.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    sh /tmp/install_packages.sh --requirement /tmp/requirements.txt --requirement /tmp/requirements-cluster.txt

FROM ${PYTHON_IMAGE} AS base
# Arrow reads time zones from the system.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 recsys \
    && useradd --uid 10001 --gid recsys --home-dir /state --no-create-home recsys \
    && install --directory --owner recsys --group recsys --mode 750 /state /state/.airflow
WORKDIR /app
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app/include:/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RECSYS_HOME=/state \
    AIRFLOW_HOME=/state/.airflow \
    HF_HUB_OFFLINE=1
VOLUME /state
# Which question is asked depends on RECSYS_ROLE, which docker-compose.yaml sets.
HEALTHCHECK --interval=30s --timeout=20s --start-period=90s --retries=3 \
    CMD ["python", "/app/docker/healthcheck.py"]

FROM base AS airflow
COPY --from=airflow-packages /venv /venv
COPY dags dags
COPY plugins plugins
COPY include include
COPY config config
COPY docker/healthcheck.py docker/initialise.py docker/
RUN python -m compileall -q .
USER recsys
CMD ["airflow", "version"]

FROM base AS service
COPY --from=service-packages /venv /venv
COPY include include
COPY serving serving
COPY config config
COPY docker/healthcheck.py docker/
RUN python -m compileall -q .
USER recsys
CMD ["python", "-m", "serving"]
