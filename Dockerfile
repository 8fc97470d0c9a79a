# The base image decides which cards work: torch 2.6 holds code for compute capability 7.0 (V100) and newer up
# to 9.0. For newer cards give a newer base: docker build --build-arg BASE=pytorch/pytorch:TAG .
ARG BASE=pytorch/pytorch:2.6.0-cuda12.4-cudnn9-runtime
FROM ${BASE}

# Newer bases keep their Python under the system's package manager.
ENV PIP_BREAK_SYSTEM_PACKAGES=1

WORKDIR /workspace
COPY requirements requirements
RUN pip install --no-cache-dir -r requirements/build.txt \
    && pip install --no-cache-dir -r requirements/runtime.txt -r requirements/optional.txt
COPY . .
RUN pip install --no-cache-dir --no-build-isolation --no-deps -e . \
    && useradd --create-home mmdet \
    && mkdir -p data cls_teachers work_dirs \
    && chmod 777 work_dirs

# HOME and the caches are writable for any `docker run --user`; ImageNet weights are kept in the mounted
# work_dirs, or are put there by hand: work_dirs/.torch/hub/checkpoints/.
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib TORCH_HOME=/workspace/work_dirs/.torch PYTHONUNBUFFERED=1
USER mmdet
CMD ["bash"]
