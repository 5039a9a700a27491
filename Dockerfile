# The three programs in a small image without a shell:
#
#   docker build -t flashsale .
#   docker run --rm flashsale flashsale --help
#
# compose.yaml runs them with their stores. Needs BuildKit, which is the default since Docker 23.

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Line tables would make the programs five times as large.
ENV CARGO_PROFILE_RELEASE_DEBUG=none \
    CARGO_PROFILE_RELEASE_STRIP=symbols
COPY . .
# The caches outlive the layer: a changed line builds that crate and no dependency. The programs have to be
# copied out, because the cache is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --bins \
        --package flashsale-server --package flashsale-cli --package flashsale-loadtest \
    && mkdir /programs \
    && cp target/release/flashsale-server target/release/flashsale target/release/flashsale-loadtest /programs/

# glibc, libgcc and CA certificates, and a user that is not root; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="flashsale" \
      org.opencontainers.image.description="A flash-sale engine: server, command line and load test" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /programs/ /usr/local/bin/
# A container is reached from outside itself. Which of its peers may say who is asking, --trusted-proxies says.
ENV FLASHSALE_LISTEN=0.0.0.0:5000
EXPOSE 5000
# Red while no order can be taken. An orchestrator that kills what is red should ask /healthz instead:
# restarting the server brings no store back.
HEALTHCHECK --interval=5s --timeout=10s --start-period=40s --retries=3 \
    CMD ["flashsale-server", "--health-check"]
CMD ["flashsale-server"]
