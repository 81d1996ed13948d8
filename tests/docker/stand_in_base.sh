#!/usr/bin/env bash
# A stand-in for the image that the Dockerfile builds on, where no registry can be reached: the same Python on the same
# Debian, made from Debian's packages and with this machine's certificates. For tests only; never push it.
#
#   stand_in_base.sh IMAGE
set -euo pipefail
image=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
  --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' trixie "$work/root.tar"
docker import --change 'CMD ["python3"]' --change 'ENV LANG=C.UTF-8' \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/root.tar" exact-base:debian >/dev/null

mkdir -p "$work/context"
cp /etc/ssl/certs/ca-certificates.crt "$work/context/ca.crt"
cat >"$work/context/Dockerfile" <<'END'
FROM exact-base:debian
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DEFAULT_TIMEOUT=180
RUN rm -f /usr/lib/python3.13/EXTERNALLY-MANAGED && ln -sf python3 /usr/bin/python
END
docker build --quiet --network host --tag "$image" "$work/context"
