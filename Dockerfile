# The two images: `--target fluent-bit` and `--target provisioner`. `make image` builds both.
#
# What they stand on, each in one place. A release gives all three with their digest
# (name:tag@sha256:…) and is refused without; see docs/release.md.
#
# Fluent Bit's own image: distroless, Debian 13 (glibc 2.41), no shell, program in /fluent-bit/bin.
ARG FLUENT_BIT_IMAGE=docker.io/fluent/fluent-bit:5.1.1
# Debian 12 has glibc 2.36, older than any base the plugin is loaded on: what is linked with
# it runs there. release/symbols_test.go reads that from the plugin.
ARG GO_IMAGE=docker.io/library/golang:1.26.8-bookworm
ARG STATIC_IMAGE=gcr.io/distroless/static-debian13:nonroot

# Runs on the machine that builds, whatever it builds for.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS source
ENV GOTOOLCHAIN=local
ARG GOPROXY=https://proxy.golang.org,direct
ARG GOSUMDB=sum.golang.org
WORKDIR /src
# No `go mod download`: it fetches what the tests need, too. Each build fetches what it imports.
COPY . .

FROM source AS plugin
ARG TARGETARCH
# The C compiler for the other architecture, where it is not there yet.
RUN if [ "$TARGETARCH" != "$(go env GOARCH)" ]; then \
      case "$TARGETARCH" in \
        arm64) compiler=aarch64-linux-gnu-gcc package=gcc-aarch64-linux-gnu libc=libc6-dev-arm64-cross ;; \
        amd64) compiler=x86_64-linux-gnu-gcc package=gcc-x86-64-linux-gnu libc=libc6-dev-amd64-cross ;; \
        *) echo "no images for $TARGETARCH: amd64 and arm64 only" >&2; exit 1 ;; \
      esac; \
      command -v "$compiler" >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$package" "$libc"; }; \
    fi
ARG VERSION
RUN make plugin GOARCH="$TARGETARCH" VERSION="$VERSION" && mkdir /out && mv "build/$TARGETARCH/out_cloudwatch_tenants.so" /out/

FROM source AS tenantlogs
ARG TARGETARCH
ARG VERSION
RUN make provisioner GOARCH="$TARGETARCH" VERSION="$VERSION" && mkdir /out && mv "build/$TARGETARCH/tenantlogs" /out/

FROM source AS launcher
ARG TARGETARCH
ARG VERSION
RUN make launcher GOARCH="$TARGETARCH" VERSION="$VERSION" && mkdir /out && mv "build/$TARGETARCH/tenantlogs-launcher" /out/

FROM ${FLUENT_BIT_IMAGE} AS fluent-bit
ARG VERSION
ARG REVISION
ARG FLUENT_BIT_IMAGE
# All of upstream's are replaced: they would name Fluent Bit's version as this image's.
LABEL org.opencontainers.image.title="eks-tenant-logs fluent-bit" \
      org.opencontainers.image.description="Fluent Bit with the output cloudwatch_tenants: container logs by namespace to CloudWatch Logs groups" \
      org.opencontainers.image.authors="eks-tenant-logs" \
      org.opencontainers.image.vendor="eks-tenant-logs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/eks-tenant-logs/eks-tenant-logs" \
      org.opencontainers.image.documentation="https://github.com/eks-tenant-logs/eks-tenant-logs/tree/main/docs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${FLUENT_BIT_IMAGE}"
COPY LICENSE /licenses/eks-tenant-logs
COPY --from=plugin --chmod=0555 /out/out_cloudwatch_tenants.so /fluent-bit/plugins/out_cloudwatch_tenants.so
# The chart starts Fluent Bit by way of it. As an entrypoint it would need to be told where tail's database is.
COPY --from=launcher --chmod=0555 /out/tenantlogs-launcher /fluent-bit/bin/tenantlogs-launcher
# The kubelet's files under /var/log/pods are 0640 root:root: user 0 reads them as their owner and
# needs no capability for it; any other user would need CAP_DAC_READ_SEARCH.
USER 0:0
ENTRYPOINT ["/fluent-bit/bin/fluent-bit"]
CMD ["--plugin=/fluent-bit/plugins/out_cloudwatch_tenants.so", "--config=/etc/tenantlogs/fluent-bit.yaml"]

FROM ${STATIC_IMAGE} AS provisioner
ARG VERSION
ARG REVISION
ARG STATIC_IMAGE
LABEL org.opencontainers.image.title="eks-tenant-logs provisioner" \
      org.opencontainers.image.description="tenantlogs: sets up, keeps and reports tenants' log groups and roles" \
      org.opencontainers.image.authors="eks-tenant-logs" \
      org.opencontainers.image.vendor="eks-tenant-logs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/eks-tenant-logs/eks-tenant-logs" \
      org.opencontainers.image.documentation="https://github.com/eks-tenant-logs/eks-tenant-logs/tree/main/docs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${STATIC_IMAGE}"
COPY LICENSE /licenses/eks-tenant-logs
COPY --from=tenantlogs --chmod=0555 /out/tenantlogs /tenantlogs
USER 65532:65532
ENTRYPOINT ["/tenantlogs"]
