# Two stages: build with the whole toolchain, run with the binary alone, as an ordinary user.
#
#   docker build -t florence2-server .
#   docker run -p 127.0.0.1:8000:8000 -e FLORENCE2_ALLOW_ANONYMOUS=true \
#     -v florence2-cache:/cache -v florence2-data:/data florence2-server
#
# for this machine alone, without keys; and for a network, where every caller shows one of the keys:
#
#   docker run -p 8000:8000 -e FLORENCE2_API_KEYS="$KEYS" \
#     -v florence2-cache:/cache -v florence2-data:/data florence2-server
#
# The first volume keeps the downloaded weights between runs; with a filled one, add -e HF_HUB_OFFLINE=1.
# The second keeps jobs, hosted files and keys. `serve --model demo` needs no download at all.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY src src
# The demo checkpoint is compiled in.
COPY models/demo/*.json models/demo/model.safetensors models/demo/
COPY benches benches
COPY tests/it/main.rs tests/it/main.rs
RUN cargo build --release --locked && mkdir /data /cache

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/release/florence2-server /usr/local/bin/florence2-server
COPY LICENSE /LICENSE
# A fresh volume takes the owner of the folder that it covers.
COPY --from=build --chown=nonroot:nonroot /data /data
COPY --from=build --chown=nonroot:nonroot /cache /cache
ENV HF_HOME=/cache FLORENCE2_DATA_DIR=/data FLORENCE2_HOST=0.0.0.0
EXPOSE 8000
# Inside the container every address is listened on, and who reaches it is decided by the published port:
# without FLORENCE2_API_KEYS the server starts only where FLORENCE2_ALLOW_ANONYMOUS=true says so.
ENTRYPOINT ["/usr/local/bin/florence2-server"]
CMD ["serve"]
