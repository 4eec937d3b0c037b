// SPDX-License-Identifier: GPL-2.0

//! Finds the lines of a kernel's or of Xen's log that no test may leave behind.

/// What a line within a report contains; whatever else is in [`SIGNS`] begins one.
const STACK: &str = "Call Trace";

/// What such a line contains.
const SIGNS: [&str; 27] = [
    "BUG:",
    "kernel BUG",
    "WARNING:",
    "Oops",
    "general protection",
    STACK,
    "Kernel panic",
    "soft lockup",
    "hard LOCKUP",
    "rcu_sched self-detected",
    "detected stalls",
    "blocked for more than",
    "leaking",
    "still pending",
    "could not be unmapped",
    "scheduling while atomic",
    "sleeping function called",
    "refcount_t:",
    "list_add corruption",
    "unregister_netdevice: waiting",
    // These come from kernels that check themselves, besides some that are above: KASAN and lockdep say BUG or WARNING.
    "INFO: lockdep is turned off",
    "INFO: trying to register non-static key",
    "ODEBUG:",
    "UBSAN:",
    "Xen BUG at",
    "Xen WARN at",
    "Panic on CPU",
];

/// What a line contains that has a sign in it and yet is as it should be.
const HARMLESS: [&str; 2] = [
    // Xen says so of its own command line, at each boot.
    "WARNING: SPEC",
    "WARNING: xpti",
];

/// What the first line of a kernel's report contains that is none of ours, whatever the rest of it says.
///
/// Linux 7.3's netfront, restored while packets are on their way, wants to keep their pages as if none were slab memory.
const REPORTS_OF_OTHERS: [&str; 1] = ["xennet_disconnect_backend"];

/// The last line of a kernel's report.
const REPORT_END: &str = "---[ end trace";

/// Lines of a report at most, should its last one be missing.
const REPORT_LINES: usize = 80;

/// The lines of `log` that report something wrong.
pub fn problems(log: &str) -> Vec<String> {
    // How many lines of a report of others may follow.
    let mut skipped = 0;
    log.lines()
        .filter(|line| {
            if begins_report(line) {
                skipped = if is_of_others(line) { REPORT_LINES } else { 0 };
            }
            let skip = skipped > 0;
            skipped = match line.contains(REPORT_END) {
                true => 0,
                false => skipped.saturating_sub(1),
            };
            !skip
        })
        .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        .filter(|line| !HARMLESS.iter().any(|harmless| line.contains(harmless)))
        .map(String::from)
        .collect()
}

/// Whether a line is the first one of a report, whosever it is.
fn begins_report(line: &str) -> bool {
    SIGNS
        .iter()
        .any(|sign| *sign != STACK && line.contains(sign))
}

/// Whether the report that begins with this line is none of ours.
fn is_of_others(line: &str) -> bool {
    line.contains("WARNING:") && REPORTS_OF_OTHERS.iter().any(|sign| line.contains(sign))
}

/// Whether a console shows that its machine has ended by itself.
pub(crate) fn is_dead(console: &str) -> bool {
    [
        "Kernel panic - not syncing",
        "Panic on CPU",
        "Hardware Dom0 crashed",
        "Domain 0 crashed",
    ]
    .iter()
    .any(|sign| console.contains(sign))
}

/// The last `count` lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_found() {
        let log = "all well\nxen:grant_table: g.e. 0x9 leaking\nBUG: unable to handle\n";
        assert_eq!(problems(log).len(), 2);
        assert!(problems("xen-netfront: fine\n").is_empty());
    }

    #[test]
    fn reports_of_others_are_skipped() {
        let report = |function| {
            format!("WARNING: mm.h:1 at {function}+0x1/0x2\nCall Trace:\n---[ end trace 0 ]---\n")
        };
        let log = report("xennet_disconnect_backend") + &report("xenvmc");
        assert_eq!(problems(&log).len(), 2);
    }

    #[test]
    fn a_report_of_others_hides_no_other_one() {
        let open = "WARNING: mm.h:1 at xennet_disconnect_backend+0x1/0x2\nCall Trace:\n";
        let log = format!("{open}BUG: unable to handle\nCall Trace:\n---[ end trace 0 ]---\n");
        assert_eq!(problems(&log), ["BUG: unable to handle", "Call Trace:"]);
        assert!(problems(&format!("{open}{open}---[ end trace 0 ]---\n")).is_empty());
        // Without an end.
        let rest = "0xffff\n".repeat(REPORT_LINES);
        assert_eq!(problems(&format!("{open}{rest}Call Trace:\n")).len(), 1);
    }

    #[test]
    fn tail_is_the_end() {
        assert_eq!(tail("1\n2\n3\n", 2), "2\n3");
    }
}
