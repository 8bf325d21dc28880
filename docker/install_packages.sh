#!/bin/sh
# Installs packages into /venv, without what no container runs: installers, tests, C headers, and
# the compiled form of modules that only a training imports, once.
#   install_packages.sh --requirement requirements.txt
set -eu
python -m venv /venv
/venv/bin/pip install --disable-pip-version-check --no-compile "$@"
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
