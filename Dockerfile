# docker build -t streamsrv .
# docker run -p 3004:3004 -v streamsrv:/data -e STREAMSRV_SERVER_API_KEYS=choose-a-long-key streamsrv

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints/py311.txt constraints/py311.txt
RUN pip install -c constraints/py311.txt setuptools wheel cython
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY native native
COPY streamsrv streamsrv
# The wheel is built here; the environment that is shipped holds no compiler and no build tools.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv /opt/streamsrv \
    && /opt/streamsrv/bin/pip install -c constraints/py311.txt "$(echo /wheels/streamsrv-*.whl)[sphinx,mongo,redis,kafka]" \
    && /opt/streamsrv/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
# Walls around the decoders of other people's files.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/streamsrv /opt/streamsrv
# Nobody's number: the server needs no name, no home and nothing to write but /data.
RUN mkdir /data && chown 65534:65534 /data
ENV PATH=/opt/streamsrv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    STREAMSRV_SERVER_HOST=0.0.0.0 \
    STREAMSRV_SERVER_LOG_FORMAT=json \
    STREAMSRV_STORE_DATA_DIR=/data
USER 65534:65534
WORKDIR /data
VOLUME /data
EXPOSE 3004
# Open to others, so the server starts only with STREAMSRV_SERVER_API_KEYS.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:3004/health/ready', timeout=2)"]
ENTRYPOINT ["streamsrv"]
CMD ["serve"]
