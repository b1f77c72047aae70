# What every image of ours starts from: Python, the locked packages of requirements/base.lock, the kit and the contracts.
#   docker build -t omoios-base -f deploy/docker/base.Dockerfile .
FROM python:3.11-slim AS packages
COPY requirements/bootstrap.lock requirements/base.lock /requirements/
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes -r /requirements/bootstrap.lock \
    && VIRTUAL_ENV=/venv /venv/bin/uv pip sync --no-cache --require-hashes --compile-bytecode /requirements/base.lock

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 omoios
COPY --from=packages /venv /venv
COPY libs/contracts/src libs/servicekit/src /app/src/
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m compileall -q /app/src
WORKDIR /app
USER omoios
