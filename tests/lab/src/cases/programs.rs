// SPDX-License-Identifier: GPL-2.0

//! Unmodified programs between two guests: what comes out must be the same over netfront and over the ring.
//!
//! Each test runs its programs without the modules, then with them. What they print (digests, above all) must be the same, and the
//! second time so many bytes at least must have gone through rings.

mod udp;

pub(super) use udp::{dns, iperf3_udp, memcached, quic};

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::bench::{Bench, GUEST1, GUEST2, GUESTS};

/// Debian's packages that the guests have.
pub(crate) const PACKAGES: &[&str] = &[
    "caddy",
    "curl",
    "dnsmasq-base",
    "dnsperf",
    "hey",
    "iperf3",
    "memcached",
    "nfs-common",
    "nfs-kernel-server",
    "nginx",
    "nodejs",
    "openssh-client",
    "openssh-server",
    "openssl",
    "python3",
    "rsync",
    "wrk",
];

/// Where the guests keep what these tests make.
const FILES: &str = "/srv/files";

/// Bytes of the large one of the files.
const LARGE: u64 = 4 << 20;

/// Bytes of each stream of iperf3.
const STREAM: u64 = 64 << 20;

/// Time for the programs of a test, one way.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A program that runs in the background of the second guest.
struct Service<'a> {
    bench: &'a Bench,
    pid: String,
}

impl<'a> Service<'a> {
    /// Starts it, and waits until somebody listens on `port`.
    fn start(bench: &'a Bench, line: &str, port: u16) -> Result<Self> {
        let line = format!("{line} </dev/null >/tmp/service.log 2>&1 & echo $!");
        let pid = bench.shell(GUEST2, &line)?;
        let service = Self { bench, pid };
        bench.wait(&format!("somebody listens on port {port}"), || {
            let found = bench.shell(GUEST2, &format!("ss -Hltun 'sport = :{port}'"))?;
            Ok(!found.is_empty())
        })?;
        Ok(service)
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let line = format!("kill {}; wait", self.pid);
        if let Err(error) = self.bench.try_shell(GUEST2, &line) {
            eprintln!("a service does not end: {error:#}");
        }
    }
}

/// Runs `line` in the first guest, without the modules and with them.
fn both_ways(bench: &Bench, least: u64, line: &str) -> Result<()> {
    both_ways_of(bench, least, || program(bench, line))
}

/// Runs `line` in the first guest; returns what it prints.
fn program(bench: &Bench, line: &str) -> Result<String> {
    let output = bench
        .lab()
        .command(GUEST1, &["/bin/sh", "-c", line])
        .timeout(TIMEOUT)
        .run()?;
    ensure!(
        !output.timed_out,
        "no end after {} s: {line}",
        TIMEOUT.as_secs()
    );
    Ok(output.success().with_context(|| line.to_owned())?.text())
}

/// Calls `run` without the modules and with them.
fn both_ways_of(bench: &Bench, least: u64, run: impl Fn() -> Result<String>) -> Result<()> {
    bench.unload_all()?;
    let (plain, plain_time) = timed(&run).context("over netfront")?;
    bench.load_all()?;
    let before = through_rings(bench)?;
    let (ring, ring_time) = timed(&run).context("over the ring")?;
    let moved = through_rings(bench)? - before;
    println!(
        "    {plain_time:.1} s over netfront, {ring_time:.1} s with {moved} bytes through rings"
    );
    ensure!(
        plain == ring,
        "over netfront:\n{plain}\nover the ring:\n{ring}"
    );
    ensure!(moved >= least, "only {moved} bytes went through rings");
    Ok(())
}

fn timed(run: &impl Fn() -> Result<String>) -> Result<(String, f64)> {
    let start = Instant::now();
    let text = run()?;
    ensure!(!text.trim().is_empty(), "nothing was printed");
    Ok((text, start.elapsed().as_secs_f64()))
}

/// Bytes that the guests have put into rings.
fn through_rings(bench: &Bench) -> Result<u64> {
    let mut sum = 0;
    for guest in GUESTS {
        for name in ["tx_bytes", "udp_tx_bytes"] {
            sum += bench.counter(guest, name)?;
        }
    }
    Ok(sum)
}

/// Files to be served: `small`, and `large`.
fn make_files(bench: &Bench) -> Result<()> {
    let line = format!(
        "mkdir -p {FILES} && cd {FILES} && [ -e large ] || \
         {{ head -c {LARGE} /dev/urandom >large; head -c 1000 /dev/urandom >small; }}"
    );
    GUESTS
        .iter()
        .try_for_each(|guest| bench.shell(*guest, &line).map(drop))
}

/// One stream, several, both directions, and without copying.
pub(super) fn iperf3(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    let _server = Service::start(bench, "iperf3 --server", 5201)?;
    let modes = ["", "--reverse", "--parallel 8", "--bidir", "--zerocopy"];
    let runs = modes.map(|mode| {
        format!(
            "iperf3 --client {server} --bytes {STREAM} --json {mode} | python3 -c 'import json, sys; \
             end = json.load(sys.stdin)[\"end\"]; \
             sums = [end[name][\"bytes\"] for name in end if name.startswith(\"sum_\")]; \
             print(\"{mode}\", len(sums), min(sums) > 0, max(sums) >= {STREAM})'"
        )
    });
    // What is on its way when a test ends is not counted at the other end. Programs of several threads get to the ring after a
    // grace period of RCU-tasks, and until then use TCP.
    both_ways(bench, STREAM, &runs.join("; "))
}

/// A server of files with sendfile, TLS, and connections that are kept or not.
pub(super) fn nginx(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    make_files(bench)?;
    bench.shell(
        GUEST2,
        "cd /tmp && mkdir -p /var/log/nginx /var/lib/nginx && \
         openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=guest2 -days 9 2>/dev/null && \
         printf '%s\\n' 'user root; daemon off; events { worker_connections 256; }' \
         'http { access_log off; sendfile on; root /srv/files; server { listen 8080; }' \
         'server { listen 8443 ssl; ssl_certificate /tmp/cert.pem; ssl_certificate_key /tmp/key.pem; } }' >nginx.conf",
    )?;
    let _server = Service::start(bench, "nginx -c /tmp/nginx.conf", 8443)?;
    let (plain, tls) = (
        format!("http://{server}:8080"),
        format!("https://{server}:8443"),
    );
    // What takes longer than wrk waits is slow, not wrong.
    let calm = "grep -e 'Socket errors' -e Non-2xx | grep -v -c 'connect 0, read 0, write 0'";
    let line = format!(
        "curl --silent --fail {plain}/large {plain}/small {plain}/large | sha256sum; \
         curl --silent --fail --http1.0 {plain}/large | sha256sum; \
         curl --silent --fail --range 1000-2000000 {plain}/large | sha256sum; \
         curl --silent --fail --insecure {tls}/large {tls}/small | sha256sum; \
         wrk --threads 1 --connections 8 --duration 2s {plain}/small | {calm}; \
         wrk --threads 1 --connections 8 --duration 2s {plain}/large | {calm}; \
         wrk --threads 1 --connections 4 --duration 2s --header 'Connection: close' {plain}/small | {calm}; true"
    );
    both_ways(bench, 5 * LARGE, &line)
}

/// Logins, copies both ways, and trees that are compared.
pub(super) fn ssh(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    make_files(bench)?;
    let key = bench.shell(
        GUEST1,
        "mkdir -p /root/.ssh && cd /root/.ssh && rm -f id_ed25519 && ssh-keygen -q -t ed25519 -N '' -f id_ed25519 && \
         echo 'StrictHostKeyChecking no' >config && cat id_ed25519.pub",
    )?;
    bench.shell(
        GUEST2,
        &format!(
            "mkdir -p /run/sshd /root/.ssh && echo '{key}' >/root/.ssh/authorized_keys && ssh-keygen -A >/dev/null && \
             grep -q ^sshd /etc/passwd || echo 'sshd:x:101:65534::/run/sshd:/bin/false' >>/etc/passwd; \
             printf '%s\\n' 'StrictModes no' 'UsePAM no' 'Subsystem sftp internal-sftp' >/etc/ssh/sshd_config"
        ),
    )?;
    let _server = Service::start(bench, "/usr/sbin/sshd -D", 22)?;
    let line = format!(
        "exec 2>/tmp/ssh.log; rm -rf /tmp/there /tmp/back; \
         ssh {server} rm -rf /tmp/there; \
         ssh {server} sha256sum {FILES}/large; \
         scp -q {server}:{FILES}/large /tmp/there && sha256sum </tmp/there; \
         scp -q {FILES}/large {server}:/tmp/there && ssh {server} 'sha256sum </tmp/there; rm /tmp/there'; \
         cat {FILES}/large | ssh {server} cat | sha256sum; \
         rsync --archive --checksum {FILES}/ {server}:/tmp/there/; \
         rsync --archive --checksum {server}:/tmp/there/ /tmp/back/; \
         diff -r {FILES} /tmp/back && echo the same"
    );
    both_ways(bench, 5 * LARGE, &line)
}

/// A server and a client that are written in Go, whose listeners are MPTCP's.
pub(super) fn go(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    make_files(bench)?;
    let command = format!("env HOME=/tmp caddy file-server --root {FILES} --listen :8081");
    let _server = Service::start(bench, &command, 8081)?;
    let url = format!("http://{server}:8081");
    let sums = "grep -e responses -e Error";
    let line = format!(
        "curl --silent --fail {url}/large {url}/small {url}/large | sha256sum; \
         for url in {url}/small {url}/large; do hey -n 40 -c 4 $url | {sums}; done; \
         hey -n 40 -c 4 -disable-keepalive {url}/small | {sums}"
    );
    both_ways(bench, 10 * LARGE, &line)
}

/// Messages of many sizes over several connections of one event loop in Python.
pub(super) fn asyncio(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    push(bench, "/tmp/pair.py", include_str!("programs/pair.py"))?;
    let _server = Service::start(bench, "python3 /tmp/pair.py serve", 7801)?;
    both_ways(bench, LARGE, &format!("python3 /tmp/pair.py {server}"))
}

/// The same in JavaScript.
pub(super) fn node(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    push(bench, "/tmp/pair.js", include_str!("programs/pair.js"))?;
    let _server = Service::start(bench, "node /tmp/pair.js serve", 7802)?;
    both_ways(bench, LARGE, &format!("node /tmp/pair.js {server}"))
}

/// Sockets that a kernel uses by itself are left alone, and work: NFS.
pub(super) fn nfs(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    make_files(bench)?;
    let release = bench.shell(GUEST1, "uname -r")?;
    insert_modules(bench, release.trim(), &["nfsd", "nfsv4"])?;
    bench.shell(
        GUEST2,
        &format!(
            "mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs /run/rpcbind /proc/fs/nfsd && touch /var/lib/nfs/etab && \
             mount -t nfsd nfsd /proc/fs/nfsd && \
             echo '{FILES} *(ro,insecure,no_root_squash,no_subtree_check,fsid=0)' >/etc/exports && \
             exportfs -r && rpc.mountd --no-nfs-version 3 && rpc.nfsd --no-nfs-version 3 --grace-time 10 --lease-time 10 4"
        ),
    )?;
    let line = format!(
        "mkdir -p /mnt && mount.nfs {server}:/ /mnt -o vers=4.2,ro && \
         sha256sum /mnt/large /mnt/small && umount /mnt"
    );
    let result = left_alone(bench, || program(bench, &line));
    bench.shell(
        GUEST2,
        "rpc.nfsd 0; killall rpc.mountd; umount /proc/fs/nfsd",
    )?;
    result
}

/// Calls `run` without the modules and with them; nothing may go through rings.
fn left_alone(bench: &Bench, run: impl Fn() -> Result<String>) -> Result<()> {
    both_ways_of(bench, 0, run)?;
    ensure!(through_rings(bench)? == 0, "bytes went through a ring");
    Ok(())
}

/// Writes a file in both guests.
fn push(bench: &Bench, path: &str, text: &str) -> Result<()> {
    let local = std::env::temp_dir().join(format!("xenvmc-tests-{}", std::process::id()));
    std::fs::write(&local, text)?;
    let result = GUESTS
        .iter()
        .try_for_each(|guest| bench.lab().push(&local, *guest, path));
    std::fs::remove_file(&local)?;
    result
}

/// Inserts modules of the guests' kernel, with all that they need. They are in the toolbox, where the tests run.
fn insert_modules(bench: &Bench, release: &str, names: &[&str]) -> Result<()> {
    for name in names {
        let words = ["--set-version", release, "--show-depends", name];
        let output = Command::new("modprobe").args(words).output()?;
        ensure!(
            output.status.success(),
            "no module {name} of Linux {release}"
        );
        for line in String::from_utf8(output.stdout)?.lines() {
            let path = line.split_whitespace().nth(1).context("a path")?;
            if line.starts_with("insmod ") {
                insert_module(bench, Path::new(path))?;
            }
        }
    }
    Ok(())
}

fn insert_module(bench: &Bench, path: &Path) -> Result<()> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .context("a name")?;
    let name = name.split_once('.').context("an extension")?.0;
    let there = format!("/tmp/{name}.ko.xz");
    for guest in GUESTS {
        let loaded = name.replace('-', "_");
        let is_there = bench.try_shell(guest, &format!("[ -e /sys/module/{loaded} ]"))?;
        if is_there.success().is_ok() {
            continue;
        }
        bench.lab().push(path, guest, &there)?;
        bench.shell(
            guest,
            &format!("xz -d -f {there} && insmod /tmp/{name}.ko && rm /tmp/{name}.ko"),
        )?;
    }
    Ok(())
}
