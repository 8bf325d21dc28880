#!/bin/sh
# Installs packages into /venv, without what no container runs: installers, tests, C headers, and
# the compiled form of modules that only a training imports, once.
#   install_packages.sh --requirement requirements.txt
# The files are those of `make lock`: all packages, with digests. Beside them lies
# requirements-torch.txt where torch is wanted.
set -eu
python -m venv /venv
/venv/bin/pip install --disable-pip-version-check --no-compile --no-deps --require-hashes "$@"
if [ -f /tmp/requirements-torch.txt ]; then
    /venv/bin/pip install --disable-pip-version-check --no-compile --requirement /tmp/requirements-torch.txt
fi
/venv/bin/pip check
/venv/bin/pip uninstall --quiet --yes pip setuptools
cd /venv/lib/python3*/site-packages
for package in pandas pyarrow scipy sklearn sympy; do
    if [ -d $package ]; then
        find $package -type d -name tests -prune -exec rm -r {} +
    fi
done
rm -rf pyarrow/include torch/include
/venv/bin/python -m compileall -q -j 0 -x '/(matplotlib|networkx|sympy|torch|transformers)/' . || true
