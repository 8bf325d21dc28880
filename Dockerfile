# One image for Airflow's components, the workers and the service: the same code everywhere.
# To pin the base by digest: --build-arg PYTHON_IMAGE=python:3.11.13-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
# Where the CPU build of torch comes from, if the default index has only the large one.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
COPY requirements.txt requirements-cluster.txt /tmp/
RUN /venv/bin/pip install --requirement /tmp/requirements.txt --requirement /tmp/requirements-cluster.txt \
    && /venv/bin/pip check

FROM ${PYTHON_IMAGE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 recsys \
    && useradd --uid 10001 --gid recsys --home-dir /state --no-create-home recsys \
    && install --directory --owner recsys --group recsys --mode 750 /state /state/.airflow
COPY --from=packages /venv /venv
WORKDIR /app
COPY dags dags
COPY plugins plugins
COPY include include
COPY serving serving
COPY config config
COPY docker/healthcheck.py docker/initialise.py docker/
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app/include:/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RECSYS_HOME=/state \
    AIRFLOW_HOME=/state/.airflow \
    HF_HUB_OFFLINE=1
USER recsys
VOLUME /state
# Which question is asked depends on RECSYS_ROLE, which docker-compose.yaml sets.
HEALTHCHECK --interval=30s --timeout=20s --start-period=90s --retries=3 \
    CMD ["python", "/app/docker/healthcheck.py"]
CMD ["python", "-m", "serving"]
