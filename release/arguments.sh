# shellcheck shell=bash
# Sourced by what builds the images, in the repository's folder: `arguments` are a build's; the bases and SOURCE_DATE_EPOCH are exported.
: "${VERSION=}"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
arguments=(--build-arg "VERSION=$VERSION" --build-arg "REVISION=$(git rev-parse HEAD)" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH")
for variable in FLUENT_BIT_IMAGE GO_IMAGE STATIC_IMAGE; do
  declare -x "$variable=$(./release/base $variable)"
  arguments+=(--build-arg "$variable=${!variable}")
done
