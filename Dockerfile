# The base image decides which cards work: torch 2.6 holds code for compute capability 7.0 (V100) to 9.0. For
# newer cards give a newer base: docker build --build-arg BASE=pytorch/pytorch:TAG . For the CPU alone:
# --build-arg BASE=python:3.12-slim --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG BASE=pytorch/pytorch:2.6.0-cuda12.4-cudnn9-runtime
FROM ${BASE}
ARG PIP_EXTRA_INDEX_URL
# A base may run as a user that must not write here.
USER root

# Newer bases keep their Python under the system's package manager. HOME and the caches are writable, and USER
# is known, for any `docker run --user`; ImageNet weights are kept in the mounted work_dirs, or are put there by
# hand: work_dirs/.torch/hub/checkpoints/.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 HOME=/tmp USER=mmdet \
    MPLCONFIGDIR=/tmp/matplotlib TORCH_HOME=/workspace/work_dirs/.torch
WORKDIR /workspace
COPY requirements requirements
# Debian's Python has no command `python`.
RUN command -v python || ln -s "$(command -v python3)" /usr/local/bin/python; \
    python -m pip install -r requirements/build.txt -r requirements/runtime.txt -r requirements/optional.txt
COPY . .
RUN python -m pip install --no-build-isolation --no-deps -e . && mkdir -p data cls_teachers work_dirs && \
    chmod 777 work_dirs
USER 1000:1000
