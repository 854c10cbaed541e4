# Two stages: build with the whole toolchain, run with the binary alone, as an ordinary user.
#
#   docker build -t florence2-server .
#   docker run -p 8000:8000 -v florence2-cache:/cache florence2-server
#
# The volume keeps the downloaded weights between runs; with a filled one, add HF_HUB_OFFLINE=1.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY src src
# The demo checkpoint is compiled in.
COPY models/demo/*.json models/demo/model.safetensors models/demo/
COPY tests/it/main.rs tests/it/main.rs
RUN cargo build --release --locked

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/release/florence2-server /usr/local/bin/florence2-server
COPY LICENSE /LICENSE
ENV HF_HOME=/cache FLORENCE2_HOST=0.0.0.0
EXPOSE 8000
# Every address of the container is reachable from outside it: set FLORENCE2_API_KEYS, or say
# FLORENCE2_ALLOW_ANONYMOUS=true where the port is published on a trusted network only.
ENTRYPOINT ["/usr/local/bin/florence2-server"]
CMD ["serve"]
