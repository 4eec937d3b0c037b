// SPDX-License-Identifier: GPL-2.0

//! The report: one page that needs nothing else.

use std::fmt::Write;

use anyhow::Result;

use crate::{
    chart::thousands,
    plots,
    results::{Results, RowResult, Run, Side},
    screen::{figure, range},
};

/// The page's style.
const STYLE: &str = include_str!("report.css");

/// Counts that are shown: name and heading.
const COUNTS: [(&str, &str); 9] = [
    ("eth0_interrupts", "eth0 interrupts"),
    ("eth0_rx_packets", "eth0 packets"),
    ("context_switches", "context switches"),
    ("events_sent", "events sent"),
    ("notices_sent", "notices sent"),
    ("tx_sleeps", "sender's sleeps"),
    ("rx_sleeps", "receiver's sleeps"),
    ("tx_spin_hits", "sender's spins"),
    ("rx_spin_hits", "receiver's spins"),
];

/// How it was measured.
const METHOD: &str = "netperf's client runs in guest 1, its server in guest 2, both unmodified. For \
     <b>netfront</b> the frontend is removed from both guests (rmmod); for <b>xenvmc</b> it is loaded \
     in both (insmod). The two take turns within one boot, and which of them comes first alternates. Figures \
     are medians, dots are single runs. After each run the frontend’s own counters (tx_bytes, rx_bytes) \
     must account for the payload, or, for netfront, the interface’s; a run that went another \
     way is marked and fails the demo. TCP_CRR closes each connection after one request, before it is \
     worth a ring: there the two shall be equal. CPU seconds are Xen’s, of whole runs, and include reading \
     the counters. Each byte is copied twice with xenvmc: into the ring by the sender, out of it by the receiver. \
     Each event sent is one hypercall.";

/// Makes the page.
///
/// # Errors
///
/// A chart cannot be drawn.
pub fn page(results: &Results) -> Result<String> {
    let mut body = String::new();
    head(&mut body, results);
    section(
        &mut body,
        "How many times netfront",
        "Bars start at 1×, where nothing changes.",
    );
    chart(
        &mut body,
        &plots::ratios(results)?,
        &[("xenvmc", "xenvmc / netfront"), ("goal", "goal")],
    );
    section(
        &mut body,
        "Throughput by message size",
        "TCP_STREAM, one connection, with what a guest can do by itself.",
    );
    chart(
        &mut body,
        &plots::streams(results)?,
        &[
            ("xenvmc", "xenvmc"),
            ("netfront", "netfront"),
            ("loopback", "TCP inside one guest"),
            ("zero", "read of /dev/zero"),
            ("memcpy", "memcpy"),
        ],
    );
    section(
        &mut body,
        "Transactions",
        "TCP_RR: one at a time over one connection. TCP_CRR: a connection for each. UDP_RR: one at a time, in datagrams.",
    );
    chart(
        &mut body,
        &plots::transactions(results)?,
        &[
            ("netfront", "netfront"),
            ("xenvmc", "xenvmc"),
            ("loopback", "TCP inside one guest"),
        ],
    );
    section(
        &mut body,
        "CPU time for the same work",
        "Of Dom0 and both guests, per byte or per transaction; less is better.",
    );
    chart(
        &mut body,
        &plots::cpu(results)?,
        &[
            ("dom0", "Dom0"),
            ("client", "client’s guest"),
            ("server", "server’s guest"),
        ],
    );
    section(&mut body, "All runs", "");
    rows(&mut body, &results.rows, "netfront", "xenvmc");
    section(
        &mut body,
        "TCP to a guest without the module",
        "No module anywhere, against the module in the client’s guest alone.",
    );
    rows(&mut body, &results.no_module, "no module", "client only");
    section(
        &mut body,
        "What the work costs",
        "Per MB or per transaction, both guests together.",
    );
    counts(&mut body, results);
    section(&mut body, "Inside one guest", "");
    bounds(&mut body, results);
    facts(&mut body, results);
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>XenVMC: netperf between two guests</title>\n<style>\n{STYLE}</style>\n{body}</html>\n"
    ))
}

/// Writes to a string, which does not fail.
macro_rules! put {
    ($to:expr, $($arguments:tt)*) => { let _ = writeln!($to, $($arguments)*); };
}

fn head(body: &mut String, results: &Results) {
    let lab = &results.lab;
    put!(body, "<h1>XenVMC: netperf between two guests</h1>");
    put!(
        body,
        "<p class=\"faint\">Two {} guests with {} vCPU each, Linux {}, Xen {}, emulated; medians of {} runs of each, in turn{}.</p>",
        escape(&lab.guest_type.to_uppercase()),
        lab.vcpus,
        escape(&results.versions.kernel),
        escape(&results.versions.xen),
        results.rows.first().map_or(0, |row| row.xenvmc.runs.len()),
        if results.quick {
            "; the quick subset"
        } else {
            ""
        }
    );
    put!(body, "<div class=\"tiles\">");
    let goals = results.rows.iter().map(|row| (row, "")).chain(
        results
            .no_module
            .iter()
            .map(|row| (row, ", peer without module")),
    );
    for (row, what) in goals.filter(|(row, _)| row.goal.is_some()) {
        let (class, word) = if row.is_met() {
            ("good", "met")
        } else {
            ("bad", "missed")
        };
        put!(
            body,
            "<div class=\"tile\"><span>{} {} B{what}</span><b>{}×</b><span class=\"{class}\">goal {}: {word}</span></div>",
            row.test.name(),
            thousands(f64::from(row.size)),
            figure(row.ratio),
            row.goal.unwrap_or_default()
        );
    }
    put!(
        body,
        "</div>\n<p class=\"caveat\">{}</p>",
        escape(&results.caveat)
    );
    let strays: usize = results
        .rows
        .iter()
        .chain(&results.no_module)
        .map(RowResult::strays)
        .sum();
    if strays > 0 {
        put!(
            body,
            "<p class=\"caveat bad\">{strays} runs did not go the way that is measured: see the table of all runs.</p>"
        );
    }
}

fn section(body: &mut String, title: &str, text: &str) {
    put!(body, "<h2>{title}</h2>");
    if !text.is_empty() {
        put!(body, "<p class=\"faint\">{text}</p>");
    }
}

fn chart(body: &mut String, svg: &str, legend: &[(&str, &str)]) {
    put!(body, "<figure><figcaption>");
    for (colour, text) in legend {
        put!(
            body,
            "<span><i style=\"background:var(--{colour})\"></i>{text}</span>"
        );
    }
    put!(body, "</figcaption>{svg}</figure>");
}

fn rows(body: &mut String, rows: &[RowResult], before: &str, after: &str) {
    put!(
        body,
        "<div class=\"scroll\"><table><tr><th>Test<th>Bytes<th>Unit<th>{before}<th>{after}<th>Ratio<th>90 %<br>within<th>{before}: runs<th>{after}: runs<th>Through<br>the ring"
    );
    for row in rows {
        put!(
            body,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td><b>{}×</b><td>{}<td class=\"runs\">{}<td class=\"runs\">{}<td>{:.1} %",
            row.test.name(),
            thousands(f64::from(row.size)),
            row.unit,
            number(row.netfront.median),
            number(row.xenvmc.median),
            figure(row.ratio),
            range(row),
            runs(&row.netfront),
            runs(&row.xenvmc),
            row.xenvmc.ring_share * 100.0
        );
    }
    put!(body, "</table></div>");
}

fn runs(side: &Side) -> String {
    let run = |run: &Run| match run.stray {
        None => number(run.value),
        Some(_) => format!("<span class=\"bad\">{}!</span>", number(run.value)),
    };
    side.runs.iter().map(run).collect::<Vec<_>>().join(" · ")
}

fn counts(body: &mut String, results: &Results) {
    for is_stream in [true, false] {
        let rows = || {
            results
                .rows
                .iter()
                .filter(|row| row.test.is_stream() == is_stream)
        };
        let Some(per) = rows().next().map(|row| row.per.as_str()) else {
            continue;
        };
        put!(
            body,
            "<div class=\"scroll counts\"><table><tr><th>Per {per}<th>"
        );
        for (_, heading) in COUNTS {
            put!(body, "<th>{}", heading.replace(' ', "<br>"));
        }
        put!(
            body,
            "<th>CPU ms<br>Dom0<th>CPU ms<br>client<th>CPU ms<br>server"
        );
        for row in rows() {
            for (name, side) in [("netfront", &row.netfront), ("xenvmc", &row.xenvmc)] {
                put!(
                    body,
                    "<tr><td>{} {} B<td>{name}",
                    row.test.name(),
                    thousands(f64::from(row.size))
                );
                for (count, _) in COUNTS {
                    let known = side.per_unit.contains_key(count);
                    let text = if known {
                        cost(side.count(count))
                    } else {
                        "–".to_owned()
                    };
                    put!(body, "<td>{text}");
                }
                let cpu = side.cpu_seconds_per_1000;
                put!(
                    body,
                    "<td>{}<td>{}<td>{}",
                    cost(cpu.dom0),
                    cost(cpu.client),
                    cost(cpu.server)
                );
            }
        }
        put!(body, "</table></div>");
    }
}

fn bounds(body: &mut String, results: &Results) {
    put!(
        body,
        "<div class=\"scroll\"><table><tr><th>What<th>Bytes<th>Unit<th>Median<th>Runs"
    );
    for bound in &results.bounds {
        let what = match bound.test.as_str() {
            "memcpy" => "memcpy".to_owned(),
            "zero" => "read of /dev/zero".to_owned(),
            test => format!("{} over loopback", escape(test)),
        };
        let runs: Vec<String> = bound.runs.iter().map(|&run| number(run)).collect();
        put!(
            body,
            "<tr><td>{what}<td>{}<td>{}<td>{}<td class=\"runs\">{}",
            thousands(f64::from(bound.size)),
            escape(&bound.unit),
            number(bound.median),
            runs.join(" · ")
        );
    }
    put!(body, "</table></div>");
}

fn facts(body: &mut String, results: &Results) {
    section(body, "Method", "");
    put!(body, "<p>{METHOD}</p>");
    section(body, "Versions", "");
    let (lab, versions) = (&results.lab, &results.versions);
    let machine = format!("{} × {}", lab.host_cpus, lab.host_cpu);
    let guests = format!(
        "2 × {}, {} vCPU, {} MiB",
        lab.guest_type, lab.vcpus, lab.memory_mib
    );
    let emulator = format!(
        "{}, {} CPUs, no hardware virtualisation",
        versions.qemu, lab.emulated_cpus
    );
    put!(body, "<dl>");
    for (name, value) in [
        ("XenVMC", versions.commit.as_str()),
        ("Linux (Dom0 and guests)", &versions.kernel),
        ("Xen", &versions.xen),
        ("QEMU", &emulator),
        ("netperf", &versions.netperf),
        ("Guests", &guests),
        ("Host", &machine),
        ("Runs took", &format!("{} s", results.seconds)),
    ] {
        put!(body, "<dt>{name}<dd>{}", escape(value));
    }
    put!(body, "</dl>");
    if !results.problems.is_empty() {
        section(body, "Problems in the logs", "");
        put!(body, "<pre>{}</pre>", escape(&results.problems.join("\n")));
    }
}

/// A value with all digits before the point.
fn number(value: f64) -> String {
    if value >= 1000.0 {
        thousands(value)
    } else {
        figure(value)
    }
}

/// A count per unit, which may be small.
fn cost(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 0.01 => format!("{value:.4}"),
        value if value < 10.0 => format!("{value:.2}"),
        value => thousands(value),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }

    #[test]
    fn costs_are_short() {
        assert_eq!(
            [cost(0.0), cost(0.0012), cost(1.234), cost(1234.0)],
            ["0", "0.0012", "1.23", "1\u{202f}234"]
        );
    }
}
