# syntax=docker/dockerfile:1
# The image of every Pinflow process: `pinflow serve api|worker|sync`, from the same lock file as a checkout.

FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/pinflow
WORKDIR /src
# Dependencies first: they change less often than the code, and this layer is kept.
COPY pyproject.toml uv.lock README.md ./
RUN uv sync --frozen --no-dev --extra server --extra environments --no-install-project
COPY engine ./engine
RUN uv sync --frozen --no-dev --extra server --extra environments --no-editable

FROM python:3.11-slim-bookworm
# git and ssh reach the sources; nothing else is needed beside Python.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git openssh-client ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /home/pinflow pinflow \
 && install -d -o pinflow -g pinflow /var/lib/pinflow
COPY --from=build /opt/pinflow /opt/pinflow
ENV PATH=/opt/pinflow/bin:$PATH PYTHONUNBUFFERED=1 PINFLOW_API_HOST=0.0.0.0 PINFLOW_DATA_DIR=/var/lib/pinflow
USER pinflow
WORKDIR /home/pinflow
VOLUME /var/lib/pinflow
EXPOSE 8000
ENTRYPOINT ["pinflow"]
CMD ["--help"]
