#!/usr/bin/env bash
# A stand-in for the image that the Dockerfiles build on, where no registry can be reached: the same Python on the same
# Debian, made from Debian's packages, with this machine's certificates and pip settings. For tests only; never push it.
#
#   stand_in_base.sh IMAGE
set -euo pipefail
image=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
  --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$work/root.tar"
docker import --change 'CMD ["python3"]' --change 'ENV LANG=C.UTF-8' \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/root.tar" exact-base:debian >/dev/null

mkdir -p "$work/context/wheels"
cp /etc/ssl/certs/ca-certificates.crt "$work/context/ca.crt"
# Wheels that pip finds in folders of this machine, such as a CPU build of torch.
python3 -m pip config list 2>/dev/null | sed -n "s/.*find-links='\(.*\)'/\1/p" | tr ' ' '\n' | sort -u | while read -r folder; do
  if [ -d "$folder" ]; then cp "$folder"/*.whl "$work/context/wheels/"; fi
done
# A page of links with digests: of files that are listed without, pip takes none where a lock asks for digests.
for wheel in "$work"/context/wheels/*.whl; do
  [ -f "$wheel" ] || continue
  name=$(basename "$wheel")
  echo "<a href=\"${name//+/%2B}#sha256=$(sha256sum "$wheel" | cut -d' ' -f1)\">$name</a>"
done >"$work/context/wheels/index.html"
cat >"$work/context/Dockerfile" <<'END'
FROM exact-base:debian
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY wheels /wheels
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_FIND_LINKS=/wheels/index.html PIP_DEFAULT_TIMEOUT=180
RUN rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED && ln -sf python3 /usr/bin/python
END
docker build --quiet --network host --tag "$image" "$work/context"
