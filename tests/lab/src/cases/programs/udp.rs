// SPDX-License-Identifier: GPL-2.0

//! Programs that use UDP.

use anyhow::Result;

use super::{FILES, LARGE, Service, both_ways, make_files, push};
use crate::bench::{Bench, GUEST1, GUEST2};

/// Bytes of each stream of iperf3.
const STREAM: u64 = 4 << 20;

/// Names that are asked for.
const NAMES: u32 = 1000;

/// How often each of them is.
const TIMES: u32 = 4;

/// A name of the server, which asks for one.
const NAME: &str = "guest2.test";

/// Where the name server listens, so that it needs no right to.
const DNS_PORT: u16 = 5353;

/// Streams both ways at a rate that the network can carry: nothing comes out of order.
pub(in crate::cases) fn iperf3_udp(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    let _server = Service::start(bench, "iperf3 --server", 5201)?;
    let modes = ["", "--reverse", "--parallel 4", "--bidir"];
    let runs = modes.map(|mode| {
        format!(
            "iperf3 --client {server} --udp --length 1400 --bitrate 8M --bytes {STREAM} --json {mode} | python3 -c 'import json, sys; \
             end = json.load(sys.stdin)[\"end\"]; \
             print(\"{mode}\", [stream[\"udp\"][\"out_of_order\"] for stream in end[\"streams\"]], end[\"sum\"][\"packets\"] > 0, \
             end[\"sum\"][\"lost_percent\"] < 90)'"
        )
    });
    both_ways(bench, STREAM, &runs.join("; "))
}

/// A name server is asked for many names, by several sockets at once.
pub(in crate::cases) fn dns(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    let names = format!("seq {NAMES} | sed");
    bench.shell(
        GUEST2,
        &format!("{names} 's/.*/192.0.2.1 name&.example/' >/tmp/hosts"),
    )?;
    bench.shell(
        GUEST1,
        &format!("{names} 's/.*/name&.example A/' >/tmp/names"),
    )?;
    let command = format!(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --port={DNS_PORT} --listen-address={server} --bind-interfaces \
         --no-resolv --no-hosts --addn-hosts=/tmp/hosts"
    );
    let _server = Service::start(bench, &command, DNS_PORT)?;
    let line = format!(
        "dnsperf -s {server} -p {DNS_PORT} -d /tmp/names -n {TIMES} -c 4 -q 20 -t 30 | \
         grep -e 'Queries completed' -e 'Queries lost' -e 'Response codes' -e 'packet size'"
    );
    both_ways(bench, u64::from(NAMES * TIMES) * 30, &line)
}

/// HTTP/3, which is QUIC, between a server in Go and a client in C: congestion control, segmentation by the kernel, marks.
pub(in crate::cases) fn quic(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    make_files(bench)?;
    bench.shell(
        GUEST2,
        &format!(
            "cd /tmp && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout quic.key -out quic.crt \
             -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} -days 9 2>/dev/null && \
             printf '%s\\n' '{{' 'admin off' 'auto_https off' '}}' 'https://{NAME}:8443 {{' 'tls /tmp/quic.crt /tmp/quic.key' \
             'root * {FILES}' 'file_server' '}}' >Caddyfile"
        ),
    )?;
    let command = "env HOME=/tmp caddy run --config /tmp/Caddyfile --adapter caddyfile";
    let _server = Service::start(bench, command, 8443)?;
    let url = format!("--resolve {NAME}:8443:{server} https://{NAME}:8443");
    let line = format!(
        "for i in 1 2 3; do curl --silent --show-error --fail --insecure --http3-only {url}/large https://{NAME}:8443/small | sha256sum; done; \
         curl --silent --fail --insecure --http3-only --output /dev/null --write-out '%{{http_version}} %{{response_code}}' {url}/small"
    );
    both_ways(bench, 2 * LARGE, &line)
}

/// A store of values that answers over UDP.
pub(in crate::cases) fn memcached(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    push(bench, "/tmp/memcached.py", include_str!("memcached.py"))?;
    let command = format!("memcached -u root -l {server} -p 11211 -U 11211");
    let _server = Service::start(bench, &command, 11211)?;
    both_ways(
        bench,
        100_000,
        &format!("python3 /tmp/memcached.py {server}"),
    )
}
